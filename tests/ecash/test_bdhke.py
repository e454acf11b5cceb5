from typing import Any

import pytest

from routstr.ecash import bdhke
from routstr.ecash.errors import EcashError, InvalidPoint, InvalidScalar
from routstr.ecash.proof import Dleq, Proof

R = "99fce58439fc37412ab3468b73db0569322588f62fb3a49182d67e23d877824a"
KEY = "7f" * 32
INFINITY_MAKER = f"{bdhke.ORDER - 1:064x}"


def test_hash_to_curve_vectors(nut: Any) -> None:
    cases = nut("00")["hash_to_curve"]
    assert len(cases) == 3
    for case in cases:
        assert bdhke.hash_to_curve(bytes.fromhex(case["message_hex"])) == case["point_hex"]


def test_blinded_message_vectors_hash_the_raw_bytes(nut: Any) -> None:
    for case in nut("00")["blinded_messages"]:
        y = bdhke._point(bdhke.hash_to_curve(bytes.fromhex(case["x_hex"])))
        r_g = bdhke._times_g(bdhke.scalar_bytes(case["r_hex" if "r_hex" in case else "r"]))
        assert bdhke._hex(bdhke._sum(y, r_g)) == case["B_"]


def test_blinded_signature_vectors(nut: Any) -> None:
    for case in nut("00")["blinded_signatures"]:
        assert bdhke.sign_blinded(case["B_"], case["k"]) == case["C_"]


def test_dleq_vectors(nut: Any) -> None:
    vectors = nut("12")
    given = vectors["hash_e"]
    assert bdhke.hash_e([given[name] for name in ("R1", "R2", "K", "C_")]) == given["hash"]

    made = vectors["deterministic"]
    nonce = bdhke.dleq_nonce(made["B_"], made["a"])
    assert bdhke.public_key(made["a"]) == made["A"]
    assert bdhke.sign_blinded(made["B_"], made["a"]) == made["C_"]
    assert bdhke.dleq_prove(made["B_"], made["a"], nonce) == Dleq(e=made["e"], s=made["s"])

    signed = vectors["blind_signature"]
    dleq = Dleq(e=signed["dleq"]["e"], s=signed["dleq"]["s"])
    points = {"b_": signed["B_"], "c_": signed["C_"], "mint_key": signed["A"]}
    assert bdhke.dleq_ok_for_signature(dleq, **points)

    carried = vectors["proof"]
    proof = Proof(
        amount=carried["amount"],
        keyset_id=carried["id"],
        secret=carried["secret"],
        c=carried["C"],
        dleq=Dleq(**carried["dleq"]),
    )
    assert bdhke.dleq_ok_for_proof(proof, carried["A"])


def valid_proof() -> tuple[Proof, str]:
    b_ = bdhke.blind("a secret", R)
    dleq = bdhke.dleq_prove(b_, KEY, bdhke.dleq_nonce(b_, KEY))
    mint_key = bdhke.public_key(KEY)
    c = bdhke.unblind(bdhke.sign_blinded(b_, KEY), R, mint_key)
    carried = Dleq(e=dleq.e, s=dleq.s, r=R)
    return Proof(amount=1, keyset_id="00", secret="a secret", c=c, dleq=carried), mint_key


def changed(proof: Proof, **fields: object) -> Proof:
    values = {name: getattr(proof, name) for name in Proof.__dataclass_fields__}
    return Proof(**(values | fields))


def test_every_part_of_a_dleq_matters() -> None:
    proof, mint_key = valid_proof()
    assert bdhke.dleq_ok_for_proof(proof, mint_key)
    assert proof.dleq is not None
    e, s = proof.dleq.e, proof.dleq.s
    other_point = bdhke.hash_to_curve(b"other")
    wrong = [
        changed(proof, secret="another secret"),
        changed(proof, c=other_point),
        changed(proof, dleq=Dleq(e=s, s=s, r=R)),
        changed(proof, dleq=Dleq(e=e, s=e, r=R)),
        changed(proof, dleq=Dleq(e=e, s=s, r=KEY)),
        changed(proof, dleq=Dleq(e=e, s=s, r="00" * 32)),
        changed(proof, dleq=Dleq(e="ff" * 32, s=s, r=R)),
        changed(proof, dleq=Dleq(e=e, s="", r=R)),
        changed(proof, dleq=Dleq(e=e.upper(), s=s, r=R)),
        changed(proof, c="02" + "ff" * 32),
        changed(proof, secret="\ud800"),
    ]
    assert not [each for each in wrong if bdhke.dleq_ok_for_proof(each, mint_key)]
    assert not bdhke.dleq_ok_for_proof(proof, other_point)
    assert not bdhke.dleq_ok_for_proof(proof, "nonsense")


def test_an_absent_dleq_proves_nothing() -> None:
    proof, mint_key = valid_proof()
    assert proof.dleq is not None
    assert not bdhke.dleq_ok_for_proof(changed(proof, dleq=None), mint_key)
    without_r = Dleq(e=proof.dleq.e, s=proof.dleq.s)
    assert not bdhke.dleq_ok_for_proof(changed(proof, dleq=without_r), mint_key)


def test_verify_knows_its_own_signature_only() -> None:
    proof, _ = valid_proof()
    assert bdhke.verify(proof.secret, proof.c, KEY)
    assert not bdhke.verify(proof.secret, proof.c, R)
    assert not bdhke.verify("another", proof.c, KEY)
    assert not bdhke.verify(proof.secret, "nonsense", KEY)
    assert not bdhke.verify("\ud800", proof.c, KEY)


@pytest.mark.parametrize(
    "point",
    ["", "nonsense", "02" + "ff" * 32, "04" + "11" * 64, "00" * 33, "02" + "AB" * 32, "٢" * 66],
)
def test_invalid_points_are_typed_errors(point: str) -> None:
    assert not bdhke.is_point(point)
    with pytest.raises(InvalidPoint):
        bdhke.sign_blinded(point, KEY)
    with pytest.raises(InvalidPoint):
        bdhke.unblind(point, R, bdhke.public_key(KEY))


@pytest.mark.parametrize("head", ["04", "06", "07"])
def test_only_compressed_points_are_points(head: str) -> None:
    x, y = bdhke._point(bdhke.hash_to_curve(b"")).point()
    if head != "04":
        head = "07" if y % 2 else "06"
    assert not bdhke.is_point(f"{head}{x:064x}{y:064x}")


@pytest.mark.parametrize(
    "scalar", ["", "1", "00" * 32, f"{bdhke.ORDER:064x}", "ff" * 32, "AB" * 32, "01" * 33]
)
def test_invalid_scalars_are_typed_errors(scalar: str) -> None:
    with pytest.raises(InvalidScalar):
        bdhke.blind("a secret", scalar)
    with pytest.raises(InvalidScalar):
        bdhke.public_key(scalar)


def test_sums_at_infinity_are_typed_errors() -> None:
    one = "00" * 31 + "01"
    generator = bdhke.public_key(one)
    with pytest.raises(InvalidPoint):
        bdhke.unblind(generator, one, generator)  # C_ = rK
    with pytest.raises(InvalidPoint):
        bdhke.unblind(bdhke.public_key(INFINITY_MAKER), INFINITY_MAKER, generator)
    assert not bdhke.dleq_ok_for_signature(
        Dleq(e=one, s=one), b_=generator, c_=generator, mint_key=generator
    )


def test_a_lone_surrogate_has_no_y() -> None:
    with pytest.raises(EcashError):
        bdhke.y_of("\ud800")
