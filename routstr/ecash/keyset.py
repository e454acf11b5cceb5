"""Keyset ids (NUT-02): their check, their derivation, their short form and their fee.

The version is the id's first byte. What differs between versions stands in one table, VERSIONS;
an id that is not in it is refused everywhere, because we could neither check nor restore it.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from routstr.ecash import derivation
from routstr.ecash.bdhke import is_point
from routstr.ecash.errors import UnsupportedKeyset
from routstr.ecash.proof import Keyset
from routstr.errors import InvalidToken

SHORT_ID_CHARS: Final = 16
RETIRING_S: Final = 30 * 86_400
"""A keyset that ends within this time is no place for ecash that somebody may keep (NUT-02)."""

_HEX: Final = re.compile(r"[0-9a-f]+")


class UnknownKeyset(InvalidToken):
    """The token names a keyset that its mint does not list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdInput:
    """All that an id may commit to."""

    keys: Mapping[int, str]
    unit: str
    input_fee_ppk: int
    final_expiry: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What one keyset version does in its own way."""

    id_chars: int
    id_of: Callable[[IdInput], str]
    deriver: Callable[[bytes, str], derivation.Deriver]


def _id_of_keys(given: IdInput) -> str:
    """`00`: the keys alone."""
    joined = b"".join(bytes.fromhex(key) for _, key in sorted(given.keys.items()))
    return "00" + hashlib.sha256(joined).hexdigest()[:14]


def _id_of_everything(given: IdInput) -> str:
    """`01`: keys with their amounts, unit, fee and expiry."""
    text = ",".join(f"{amount}:{key}" for amount, key in sorted(given.keys.items()))
    text += f"|unit:{given.unit}"
    if given.input_fee_ppk > 0:
        text += f"|input_fee_ppk:{given.input_fee_ppk}"
    if given.final_expiry is not None:
        text += f"|final_expiry:{given.final_expiry}"
    return "01" + hashlib.sha256(text.encode()).hexdigest()


VERSIONS: Final[Mapping[str, Version]] = {
    "00": Version(id_chars=16, id_of=_id_of_keys, deriver=derivation.bip32_deriver),
    "01": Version(id_chars=66, id_of=_id_of_everything, deriver=derivation.hmac_deriver),
}


def version_of(keyset_id: str) -> Version:
    """The version of a full keyset id. Raises UnsupportedKeyset."""
    version = VERSIONS.get(keyset_id[:2])
    if version is None:
        raise UnsupportedKeyset("only keyset versions 00 and 01 are supported")
    if len(keyset_id) != version.id_chars or _HEX.fullmatch(keyset_id) is None:
        raise UnsupportedKeyset("the keyset id is not an id of its version")
    return version


def keyset_id(
    keys: Mapping[int, str],
    *,
    unit: str,
    input_fee_ppk: int,
    final_expiry: int | None,
    version: str,
) -> str:
    """The id of these keys (NUT-02); hex keys by amount, fee in parts per thousand inputs.

    Raises UnsupportedKeyset for a version not in the table or for keys that are no points.
    """
    if version not in VERSIONS:
        raise UnsupportedKeyset("only keyset versions 00 and 01 are supported")
    if not keys or not all(is_point(key) for key in keys.values()):
        raise UnsupportedKeyset("a keyset has at least one key, and each is a point")
    given = IdInput(keys=keys, unit=unit, input_fee_ppk=input_fee_ppk, final_expiry=final_expiry)
    return VERSIONS[version].id_of(given)


def id_matches(keyset: Keyset) -> bool:
    """Whether the keyset's id is the one its contents have; False for anything unsupported.

    A final_expiry of 0 passes both as "none" (the NUT) and as the number 0 (nutshell).
    """
    readings = {keyset.final_expiry, keyset.final_expiry or None}
    try:
        version_of(keyset.id)
        ids = {
            keyset_id(
                keyset.keys,
                unit=keyset.unit,
                input_fee_ppk=keyset.input_fee_ppk,
                final_expiry=reading,
                version=keyset.id[:2],
            )
            for reading in readings
        }
    except UnsupportedKeyset:
        return False
    return keyset.id in ids


def residue31(keyset_id: str) -> int:
    """The 31 bits by which NUT-13 tells keysets apart. Raises UnsupportedKeyset.

    Of a `01` id the first 8 bytes count, as NUT-13 says. Two keysets with equal residues would
    share their secrets (`00`) or their short id (`01`): such a mint is refused.
    """
    version_of(keyset_id)
    return derivation.residue31(keyset_id)


def fee(ppks: Iterable[int]) -> int:
    """The mint's fee in its unit for inputs with these fees per thousand, rounded up (NUT-02)."""
    return (sum(ppks) + 999) // 1000


def is_keyset_id(text: str) -> bool:
    """Whether a token may carry `text`: a full id, or the first 8 bytes of a `01` id (NUT-02)."""
    version = VERSIONS.get(text[:2])
    if version is None or _HEX.fullmatch(text) is None:
        return False
    return len(text) in {SHORT_ID_CHARS, version.id_chars}


def short_id(keyset_id: str) -> str:
    """The 8-byte form that a token may carry (NUT-02). Raises UnsupportedKeyset."""
    version_of(keyset_id)
    return keyset_id[:SHORT_ID_CHARS]


def find_keyset(keyset_id: str, keysets: Iterable[Keyset]) -> Keyset:
    """The one keyset with this full or short id, out of one mint's.

    Raises UnknownKeyset if there is none (refresh once, then give up), InvalidToken if a short id
    fits several: guessing would credit a proof of the wrong keyset.
    """
    if not is_keyset_id(keyset_id):
        raise InvalidToken("The token's keyset id is malformed or of an unsupported version.")
    known = {each.id: each for each in keysets}
    if keyset_id in known:
        return known[keyset_id]
    if len(keyset_id) != SHORT_ID_CHARS:
        raise UnknownKeyset
    fitting = [each for each in known.values() if each.id.startswith(keyset_id)]
    if not fitting:
        raise UnknownKeyset
    if len(fitting) > 1:
        raise InvalidToken("The token's short keyset id fits several keysets of its mint.")
    return fitting[0]


def resolve_short_id(short: str, keysets: Iterable[Keyset]) -> str:
    """The full id behind a short (or full) one; raises as `find_keyset`."""
    return find_keyset(short, keysets).id
