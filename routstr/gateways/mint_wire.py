"""A mint's JSON answers, read into values: hostile until they have passed here (SR-13).

Nothing is coerced: a number is an int and no bool, an amount is a canonical decimal text, a point
is lower-case hex. Unknown fields are ignored. A malformed answer is MintUnknown: it says nothing
about what the mint did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import orjson

from routstr.ecash.bdhke import is_point
from routstr.ecash.errors import BadSignature, UnsupportedKeyset
from routstr.ecash.keyset import version_of
from routstr.ecash.outputs import signatures_from_json
from routstr.ecash.proof import BlindedMessage, BlindSignature
from routstr.gateways.mint_failure import (
    MALFORMED_REQUEST,
    MintLimited,
    MintMisbehaved,
    MintRefused,
    MintUnknown,
)

KEYSETS_MAX: Final = 256
KEYS_MAX: Final = 256
NUTS_MAX: Final = 256
NAME_CHARS_MAX: Final = 100
UNIT_CHARS_MAX: Final = 20
FEE_PPK_MAX: Final = 2**32
RETRY_AFTER_S_MAX: Final = 3_600


class ProofState(StrEnum):
    """What a mint says of a proof (NUT-07). It says UNSPENT of garbage too."""

    UNSPENT = "UNSPENT"
    PENDING = "PENDING"
    SPENT = "SPENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class MintInfo:
    """What a mint says of itself (NUT-06): its name, for people, and the NUTs it supports."""

    name: str
    nuts: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetInfo:
    """A keyset as listed (NUT-02), without its keys; the fee in parts per thousand inputs."""

    id: str
    unit: str
    active: bool
    input_fee_ppk: int
    final_expiry: int | None


def parsed(body: bytes) -> object:
    """The JSON value of a body. Raises MintUnknown."""
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MintUnknown("the mint's answer is no JSON") from error
    return value


def check_status(status: int, body: bytes, retry_after: str | None) -> None:
    """Return for a 200, else raise MintRefused, MintLimited or MintUnknown (ecash.md section 4)."""
    if status == 200:
        return
    if status == 429:
        raise MintLimited("the mint limits us", retry_after_s=_seconds(retry_after))
    if status in (400, 422):
        value = _object(parsed(body))
        code, detail = value.get("code"), value.get("detail")
        if status == 422 and code is None and isinstance(detail, list):
            raise MintRefused(MALFORMED_REQUEST, detail_kind="list")
        if status == 400 and _is_int(code):
            assert isinstance(code, int)
            raise MintRefused(code, detail_kind=type(detail).__name__)
    raise MintUnknown(f"the mint answered {status}", status=status)


def info_from_json(value: object) -> MintInfo:
    """GET /v1/info (NUT-06)."""
    answer = _object(value)
    nuts = _object(answer.get("nuts"))
    supported = {
        int(number)
        for number, setting in list(nuts.items())[:NUTS_MAX]
        if number.isascii() and number.isdigit() and len(number) <= 3 and _is_supported(setting)
    }
    name = answer.get("name")
    shown = name if isinstance(name, str) and name.isprintable() else ""
    return MintInfo(name=shown[:NAME_CHARS_MAX], nuts=frozenset(supported))


def keysets_from_json(value: object) -> tuple[KeysetInfo, ...]:
    """GET /v1/keysets (NUT-02); keysets of versions we do not speak are left out.

    Raises MintMisbehaved if an id is listed twice.
    """
    entries = [_object(each) for each in _list(_object(value).get("keysets"), KEYSETS_MAX)]
    infos = tuple(_keyset_info(each) for each in entries if _is_known_version(each.get("id")))
    if len({each.id for each in infos}) != len(infos):
        raise MintMisbehaved("the mint lists a keyset twice")
    return infos


def keys_from_json(value: object, keyset_id: str) -> Mapping[int, str]:
    """GET /v1/keys/{id} (NUT-01): this one keyset's public keys by amount."""
    entries = [_object(each) for each in _list(_object(value).get("keysets"), KEYSETS_MAX)]
    if len(entries) != 1 or entries[0].get("id") != keyset_id:
        raise MintUnknown("the mint answered with other keysets")
    keys = _object(entries[0].get("keys"))
    if not 0 < len(keys) <= KEYS_MAX:
        raise MintUnknown("the mint's keyset has no keys, or too many")
    return {_amount_of(text): _point(key) for text, key in keys.items()}


def signatures_from_answer(value: object) -> tuple[BlindSignature, ...]:
    """The `signatures` of POST /v1/swap (NUT-03); whether they are ours is for `unblind_all`."""
    try:
        return signatures_from_json(_object(value).get("signatures"))
    except BadSignature as error:
        raise MintUnknown("the mint's signatures are malformed") from error


def restored_from_json(
    value: object, asked: Sequence[BlindedMessage]
) -> Mapping[str, BlindSignature]:
    """POST /v1/restore (NUT-09): the signatures by B_.

    `outputs` echoes what we sent, so it only tells which signature belongs to which B_; amounts
    come from `signatures`. An echo of something we did not send, or twice, is malformed.
    """
    signatures = signatures_from_answer(value)
    outputs = _list(_object(value).get("outputs"), len(asked))
    if len(outputs) != len(signatures):
        raise MintUnknown("the mint restored outputs without signatures")
    keyset_ids = {each.b_: each.keyset_id for each in asked}
    found: dict[str, BlindSignature] = {}
    for output, signature in zip(outputs, signatures, strict=True):
        b_ = _object(output).get("B_")
        if not isinstance(b_, str) or b_ in found or keyset_ids.get(b_) != signature.keyset_id:
            raise MintUnknown("the mint restored what we did not ask for")
        found[b_] = signature
    return found


def states_from_json(value: object, ys: Sequence[str]) -> Mapping[str, ProofState]:
    """POST /v1/checkstate (NUT-07): one state for each Y, in our order, echoing it."""
    entries = [_object(each) for each in _list(_object(value).get("states"), len(ys))]
    if [each.get("Y") for each in entries] != list(ys):
        raise MintUnknown("the mint answered for other proofs")
    try:
        return {y: ProofState(str(each.get("state"))) for y, each in zip(ys, entries, strict=True)}
    except ValueError as error:
        raise MintUnknown("the mint named no state of the protocol") from error


def _keyset_info(entry: Mapping[str, object]) -> KeysetInfo:
    keyset_id, unit, active = entry.get("id"), entry.get("unit"), entry.get("active")
    fee_ppk, final_expiry = entry.get("input_fee_ppk"), entry.get("final_expiry")
    if not isinstance(unit, str) or not 0 < len(unit) <= UNIT_CHARS_MAX:
        raise MintUnknown("a keyset has no unit")
    if not isinstance(keyset_id, str) or not isinstance(active, bool):
        raise MintUnknown("a keyset does not say whether it is active")
    return KeysetInfo(
        id=keyset_id,
        unit=unit,
        active=active,
        input_fee_ppk=0 if fee_ppk is None else _bounded(fee_ppk, FEE_PPK_MAX),
        final_expiry=None if final_expiry is None else _bounded(final_expiry, 2**53),
    )


def _is_known_version(keyset_id: object) -> bool:
    try:
        version_of(keyset_id if isinstance(keyset_id, str) else "")
    except UnsupportedKeyset:
        return False
    return True


def _is_supported(setting: object) -> bool:
    """NUT-06: `supported` true or a non-empty list, or no such field and not `disabled`."""
    if not isinstance(setting, dict):
        return False
    return bool(setting.get("supported", True)) and setting.get("disabled") is not True


def _amount_of(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20 or str(int(text)) != text:
        raise MintUnknown("a key's amount is no canonical number")
    if int(text) == 0:
        raise MintUnknown("a key's amount is zero")
    return int(text)


def _point(value: object) -> str:
    if not isinstance(value, str) or not is_point(value):
        raise MintUnknown("a key is no point on the curve")
    return value


def _bounded(value: object, maximum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise MintUnknown("a number is out of range")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise MintUnknown("the mint's answer has another shape")
    return value


def _list(value: object, count_max: int) -> Sequence[object]:
    if not isinstance(value, list) or len(value) > count_max:
        raise MintUnknown("the mint's answer has another shape")
    return value


def _seconds(retry_after: str | None) -> int:
    """Retry-After in whole seconds (RFC 9110 §10.2.3), 1 for a date or nonsense."""
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return 1
    return max(1, min(int(retry_after[:6]), RETRY_AFTER_S_MAX))
