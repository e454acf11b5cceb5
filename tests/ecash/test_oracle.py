"""Our protocol against nutshell's, on a thousand random cases each."""

import hashlib
import random
from pathlib import Path

import pytest

from routstr.ecash import bdhke, p2pk
from routstr.ecash.keyset import keyset_id
from routstr.ecash.proof import BlindedMessage, Dleq, Proof
from routstr.ecash.request import (
    Lock,
    PaymentRequest,
    Transport,
    decode_request,
    encode_request_a,
    encode_request_b,
)
from routstr.ecash.secret import derive
from routstr.ecash.token import (
    BODY_BYTES_MAX,
    Token,
    decode_token,
    encode_token_v3,
    encode_token_v4,
)
from tests.harness import oracle as harness
from tests.harness.oracle import Oracle, OracleMissing, running_oracle

CASES = 1000


@pytest.fixture
def dice() -> random.Random:
    return random.Random(21)


def scalar(dice: random.Random) -> str:
    return f"{dice.randrange(1, bdhke.ORDER):064x}"


def any_text(dice: random.Random) -> str:
    return "".join(dice.choice("0123456789abcdefŸ語🥜 \"\\'") for _ in range(dice.randint(1, 80)))


def full_id(dice: random.Random) -> str:
    return dice.choice(["00" + dice.randbytes(7).hex(), "01" + dice.randbytes(32).hex()])


def test_missing_environment_fails_with_a_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "python"
    with (
        pytest.raises(OracleMissing, match="create the mint's environment"),
        running_oracle(missing),
    ):
        pass


def test_hash_to_curve_and_y(oracle: Oracle, dice: random.Random) -> None:
    texts = [any_text(dice) for _ in range(CASES)]
    answers = oracle.ask("hash_to_curve", [{"message": each.encode().hex()} for each in texts])
    assert [each["point"] for each in answers] == [bdhke.y_of(text) for text in texts]
    assert [each["point"] for each in answers] == [
        bdhke.hash_to_curve(text.encode()) for text in texts
    ]


def test_the_whole_exchange(oracle: Oracle, dice: random.Random) -> None:
    givens = [(any_text(dice), scalar(dice), scalar(dice)) for _ in range(CASES)]
    blinded = [bdhke.blind(secret, r) for secret, r, _ in givens]
    theirs = oracle.ask("blind", [{"secret": secret, "r": r} for secret, r, _ in givens])
    assert [each["b_"] for each in theirs] == blinded

    signed = oracle.ask(
        "sign", [{"b_": b_, "key": key} for b_, (_, _, key) in zip(blinded, givens, strict=True)]
    )
    asked: list[dict[str, str]] = []
    for b_, (secret, r, key), answer in zip(blinded, givens, signed, strict=True):
        mint_key = bdhke.public_key(key)
        c_ = bdhke.sign_blinded(b_, key)
        assert answer["c_"] == c_
        ours = bdhke.dleq_prove(b_, key, bdhke.dleq_nonce(b_, key))
        assert (answer["e"], answer["s"]) == (ours.e, ours.s)
        assert bdhke.dleq_ok_for_signature(ours, b_=b_, c_=c_, mint_key=mint_key)
        c = bdhke.unblind(c_, r, mint_key)
        assert bdhke.verify(secret, c, key)
        asked.append(
            {"c_": c_, "r": r, "mint_key": mint_key, "secret": secret, "c": c, "key": key}
            | {"e": ours.e, "s": ours.s, "b_": b_}
        )
        proof = Proof(
            amount=1,
            keyset_id="00",
            secret=secret,
            c=c,
            dleq=Dleq(e=ours.e, s=ours.s, r=r),
        )
        assert bdhke.dleq_ok_for_proof(proof, mint_key)
    assert [each["c"] for each in oracle.ask("unblind", asked)] == [each["c"] for each in asked]
    for operation in ("verify", "dleq_signature", "dleq_proof"):
        assert all(each["ok"] for each in oracle.ask(operation, asked)), operation


def test_a_proof_with_another_nonce_convinces_the_judge(
    oracle: Oracle, dice: random.Random
) -> None:
    cases: list[harness.Case] = []
    for number in range(CASES):
        b_, key = bdhke.hash_to_curve(dice.randbytes(32)), scalar(dice)
        c_, proof = bdhke.sign_blinded(b_, key), bdhke.dleq_prove(b_, key, scalar(dice))
        e = scalar(dice) if number % 2 else proof.e
        mint_key = bdhke.public_key(key)
        ours = bdhke.dleq_ok_for_signature(Dleq(e=e, s=proof.s), b_=b_, c_=c_, mint_key=mint_key)
        assert ours == (number % 2 == 0)
        cases.append({"b_": b_, "c_": c_, "e": e, "s": proof.s, "mint_key": mint_key})
    answers = oracle.ask("dleq_signature", cases)
    assert [each["ok"] for each in answers] == [number % 2 == 0 for number in range(CASES)]


def test_deterministic_secrets(oracle: Oracle, dice: random.Random) -> None:
    cases: list[harness.Case] = []
    ours: list[harness.Case] = []
    for _ in range(CASES):
        seed, name, counter = dice.randbytes(64), full_id(dice), dice.randrange(2**31)
        secret, r = derive(seed, name, counter)
        cases.append({"seed": seed.hex(), "keyset_id": name, "counter": counter})
        ours.append({"secret": secret, "r": r})
    assert oracle.ask("derive", cases) == ours


def test_keyset_ids(oracle: Oracle, dice: random.Random) -> None:
    points = [bdhke.public_key(scalar(dice)) for _ in range(64)]
    cases: list[harness.Case] = []
    ours: list[str] = []
    for _ in range(CASES):
        amounts = [1 << bit for bit in range(dice.randint(1, 64))]
        dice.shuffle(amounts)
        keys = {amount: dice.choice(points) for amount in amounts}
        version, unit = dice.choice(["00", "01"]), dice.choice(["sat", "msat", "usd"])
        fee, expiry = dice.choice([0, 100, 999]), dice.choice([None, 0, 1_900_000_000])
        cases.append(
            {"keys": {str(amount): point for amount, point in keys.items()}, "unit": unit}
            | {"input_fee_ppk": fee, "final_expiry": expiry, "version": version}
        )
        ours.append(
            keyset_id(keys, unit=unit, input_fee_ppk=fee, final_expiry=expiry, version=version)
        )
    assert [each["id"] for each in oracle.ask("keyset_id", cases)] == ours


def random_token(dice: random.Random) -> Token:
    names = [full_id(dice) for _ in range(dice.randint(1, 3))]
    proofs: list[Proof] = []
    for number in range(dice.randint(1, 12)):
        dleq = Dleq(e=scalar(dice), s=scalar(dice), r=scalar(dice))
        proofs.append(
            Proof(
                amount=1 << dice.randrange(40),
                keyset_id=dice.choice(names),
                secret=f"{number} {any_text(dice)}",
                c=bdhke.hash_to_curve(dice.randbytes(32)),
                dleq=dleq,
            )
        )
    proofs.sort(key=lambda proof: names.index(proof.keyset_id))  # V4 groups by keyset
    return Token(
        mint_url="https://mint.example.com/Bitcoin",
        unit=dice.choice(["sat", "msat"]),
        proofs=tuple(proofs),
        memo=dice.choice([None, "thank you 🥜"]),
    )


def as_json(token: Token) -> harness.Case:
    proofs: list[object] = []
    for proof in token.proofs:
        assert proof.dleq is not None
        dleq = {"e": proof.dleq.e, "s": proof.dleq.s, "r": proof.dleq.r}
        entry: harness.Case = {"amount": proof.amount, "id": proof.keyset_id, "dleq": dleq}
        proofs.append(entry | {"secret": proof.secret, "C": proof.c})
    memo = token.memo
    return {"mint": token.mint_url, "unit": token.unit, "memo": memo, "proofs": proofs}


@pytest.mark.parametrize("version", [3, 4])
def test_tokens_in_both_directions(oracle: Oracle, dice: random.Random, version: int) -> None:
    tokens = [random_token(dice) for _ in range(CASES // 2)]
    encode = encode_token_v3 if version == 3 else encode_token_v4
    texts = [{"text": encode(token, include_dleq=True)} for token in tokens]
    for token, answer in zip(tokens, oracle.ask("decode_token", texts), strict=True):
        wanted = as_json(token)
        assert (answer["mint"], answer["unit"]) == (wanted["mint"], wanted["unit"])
        assert answer["memo"] == wanted["memo"]
        assert isinstance(answer["proofs"], list)
        seen = [
            {name: each[name] for name in ("amount", "id", "dleq", "secret", "C")}
            for each in answer["proofs"]
        ]
        assert seen == wanted["proofs"]

    asked: list[harness.Case] = [
        as_json(token) | {"version": version, "include_dleq": True} for token in tokens
    ]
    for token, answer in zip(tokens, oracle.ask("encode_token", asked), strict=True):
        assert decode_token(str(answer["text"]), bytes_max=BODY_BYTES_MAX) == token


def outputs_of(dice: random.Random) -> list[BlindedMessage]:
    return [
        BlindedMessage(
            amount=1 << dice.randrange(30),
            keyset_id="009a1f293253e41e",
            b_=bdhke.hash_to_curve(dice.randbytes(32)),
        )
        for _ in range(dice.randint(1, 5))
    ]


def test_quote_signatures_in_both_directions(oracle: Oracle, dice: random.Random) -> None:
    cases: list[harness.Case] = []
    givens = [(dice.randbytes(16).hex(), outputs_of(dice), scalar(dice)) for _ in range(CASES // 4)]
    for number, (quote, outputs, key) in enumerate(givens):
        message = list(p2pk.QuoteMessage)[number % 2]
        wire = [{"amount": each.amount, "id": each.keyset_id, "B_": each.b_} for each in outputs]
        signature = p2pk.sign_quote(quote, outputs, key, message=message)
        case: harness.Case = {"quote": quote, "outputs": wire, "key": key}
        cases.append(case | {"signature": signature, "public_key": bdhke.public_key(key)})
    assert all(each["ok"] for each in oracle.ask("verify_quote", cases))
    for (quote, outputs, key), answer in zip(givens, oracle.ask("sign_quote", cases), strict=True):
        tagged, signature = p2pk.QuoteMessage.TAGGED, str(answer["signature"])
        public_key = bdhke.public_key(key)
        assert p2pk.verify_quote(quote, outputs, signature, public_key, message=tagged)
        assert not p2pk.verify_quote(quote, outputs, signature, public_key)


def test_witnesses_in_both_directions(oracle: Oracle, dice: random.Random) -> None:
    cases: list[harness.Case] = []
    for _ in range(CASES // 4):
        key = scalar(dice)
        public_key = bdhke.public_key(key)
        secret = p2pk.lock_secret(public_key, nonce=dice.randbytes(16).hex())
        witness = p2pk.sign_secret(secret, key)
        signature = witness.removeprefix('{"signatures":["').removesuffix('"]}')
        cases.append(
            {"secret": secret, "key": key, "public_key": public_key, "signature": signature}
        )
    assert all(each["ok"] for each in oracle.ask("verify_secret", cases))
    for case, answer in zip(cases, oracle.ask("sign_secret", cases), strict=True):
        witness = f'{{"signatures":["{answer["signature"]}"]}}'
        assert p2pk.verify_secret(str(case["secret"]), witness, str(case["public_key"]))


def test_payment_requests_in_both_directions(oracle: Oracle, dice: random.Random) -> None:
    cases: list[harness.Case] = []
    requests: list[PaymentRequest] = []
    for number in range(CASES // 4):
        key = bdhke.public_key(scalar(dice))
        lock = Lock(kind="P2PK", data=key, tags=(("sigflag", "SIG_INPUTS"),))
        post = Transport(kind="post", target="https://node.example.com/pay")
        requests.append(
            PaymentRequest(
                id=hashlib.sha256(str(number).encode()).hexdigest()[:8],
                amount=dice.randrange(2**40),
                unit=dice.choice(["sat", "msat"]),
                single_use=dice.choice([None, True, False]),
                mints=("https://mint.example.com",),
                description=dice.choice([None, "one request"]),
                transports=(post,) if number % 2 else (),
                lock=lock if number % 3 else None,
            )
        )
        case: harness.Case = {"i": requests[-1].id, "a": requests[-1].amount}
        case |= {"u": requests[-1].unit, "m": ["https://mint.example.com"]}
        case |= {"s": requests[-1].single_use, "d": requests[-1].description}
        case |= {"t": [{"t": "post", "a": post.target}] if number % 2 else None}
        tags = [["sigflag", "SIG_INPUTS"]]
        case |= {"nut10": {"k": "P2PK", "d": key, "t": tags} if number % 3 else None}
        cases.append({name: value for name, value in case.items() if value is not None})
    answers = oracle.ask("encode_request", [{"request": case} for case in cases])
    for request, answer in zip(requests, answers, strict=True):
        assert decode_request(str(answer["a"])) == request
        assert decode_request(str(answer["b"])) == request
        assert answer["b"] == encode_request_b(request)
    for encode in (encode_request_a, encode_request_b):
        asked: list[harness.Case] = [{"text": encode(request)} for request in requests]
        assert [each["request"] for each in oracle.ask("decode_request", asked)] == cases
