from dataclasses import replace
from typing import Any

import pytest

from routstr.ecash import keyset
from routstr.ecash.errors import UnsupportedKeyset
from routstr.ecash.proof import Keyset
from routstr.errors import InvalidToken
from tests.ecash.conftest import SigningKeyset


def of_vector(case: Any) -> Keyset:
    return Keyset(
        id=case["id"],
        unit=case.get("unit", "sat"),
        active=True,
        input_fee_ppk=int(case.get("input_fee_ppk") or 0),
        final_expiry=int(case["final_expiry"]) if case.get("final_expiry") else None,
        keys={int(amount): key for amount, key in case["keys"].items()},
    )


def test_id_vectors(nut: Any) -> None:
    vectors = nut("02")
    assert (len(vectors["v1"]), len(vectors["v2"])) == (2, 3)
    for case in vectors["v1"] + vectors["v2"]:
        given = of_vector(case)
        assert keyset.id_matches(given)
        missing = dict(given.keys)
        missing.popitem()  # the highest key, which we never use, counts too
        assert not keyset.id_matches(replace(given, keys=missing))
        assert not keyset.id_matches(replace(given, keys={}))


def test_a_01_id_commits_to_unit_fee_and_expiry(nut: Any) -> None:
    given = of_vector(nut("02")["v2"][0])
    assert not keyset.id_matches(replace(given, unit="msat"))
    assert not keyset.id_matches(replace(given, input_fee_ppk=101))
    assert not keyset.id_matches(replace(given, final_expiry=None))
    assert not keyset.id_matches(replace(given, final_expiry=0))


@pytest.mark.parametrize("hashed", [None, 0])
def test_final_expiry_0_is_accepted_in_both_readings(
    signer: SigningKeyset, hashed: int | None
) -> None:
    given = signer.keyset
    name = keyset.keyset_id(
        given.keys, unit="sat", input_fee_ppk=0, final_expiry=hashed, version=given.id[:2]
    )
    assert keyset.id_matches(replace(given, id=name, final_expiry=0))


def test_another_id_never_matches(signer: SigningKeyset) -> None:
    given = signer.keyset
    assert keyset.id_matches(given)
    for name in ("", "00", "02" + given.id[2:], given.id[:-1], given.id.upper() + "x"):
        assert not keyset.id_matches(replace(given, id=name))
    swapped = {1: given.keys[2], 2: given.keys[1]}
    assert not keyset.id_matches(replace(given, keys=dict(given.keys) | swapped))
    assert not keyset.id_matches(replace(given, keys={1: "02" + "ff" * 32}))


def test_unknown_versions_are_refused(signer: SigningKeyset) -> None:
    keys = signer.keyset.keys
    with pytest.raises(UnsupportedKeyset):
        keyset.keyset_id(keys, unit="sat", input_fee_ppk=0, final_expiry=None, version="02")
    for name in ("", "02" + "0" * 14, "00" + "0" * 13, "00" + "G" * 14, "01" + "0" * 14):
        with pytest.raises(UnsupportedKeyset):
            keyset.version_of(name)
        with pytest.raises(UnsupportedKeyset):
            keyset.residue31(name)


def test_residue_vector(nut: Any) -> None:
    given = nut("13")["v1"][0]
    assert keyset.residue31(given["keyset_id"]) == given["keyest_id_int"]  # spelt so


def test_residue_of_a_01_id_is_its_first_8_bytes() -> None:
    start = "01" + "ab" * 7
    assert keyset.residue31(start + "00" * 25) == keyset.residue31(start + "ff" * 25)
    assert keyset.residue31(start + "00" * 25) == int(start, 16) % (2**31 - 1)


@pytest.mark.parametrize(
    ("ppks", "units"),
    [([], 0), ([0, 0], 0), ([1], 1), ([100] * 10, 1), ([100] * 11, 2), ([1000], 1), ([1001], 2)],
)
def test_fee_rounds_the_sum_up(ppks: list[int], units: int) -> None:
    assert keyset.fee(ppks) == units


def listed(*names: str) -> list[Keyset]:
    return [
        Keyset(id=name, unit="sat", active=True, input_fee_ppk=0, final_expiry=None, keys={})
        for name in names
    ]


def test_short_ids_fit_exactly_one_keyset() -> None:
    old, new = "00" + "ab" * 7, "01" + "ab" * 32
    twin = new[:16] + "cd" * 25
    assert keyset.resolve_short_id(old, listed(old, new)) == old
    assert keyset.resolve_short_id(new, listed(old, new, new)) == new
    assert keyset.resolve_short_id(new[:16], listed(old, new, new)) == new
    assert keyset.resolve_short_id(new, listed(new, twin)) == new
    with pytest.raises(InvalidToken, match="several"):
        keyset.resolve_short_id(new[:16], listed(new, twin))
    for unknown in (twin, twin[:16], "00" + "cd" * 7):
        with pytest.raises(keyset.UnknownKeyset):
            keyset.resolve_short_id(unknown, listed(old))
    for malformed in ("", "01", new[:-2], "02" + "ab" * 7, "zz" + "ab" * 7):
        with pytest.raises(InvalidToken) as caught:
            keyset.resolve_short_id(malformed, listed(old, new))
        assert not isinstance(caught.value, keyset.UnknownKeyset)


def test_short_id_of_a_full_one() -> None:
    assert keyset.short_id("00" + "ab" * 7) == "00" + "ab" * 7
    assert keyset.short_id("01" + "ab" * 32) == "01" + "ab" * 7
    with pytest.raises(UnsupportedKeyset):
        keyset.short_id("02" + "ab" * 32)
