"""Payment requests: `creqA` is CBOR in base64url (NUT-18), `creqB` is bech32m (NUT-26).

We write them into 402 answers (NUT-24); reading is for the paying side of the demo and the tests.
Everything that cannot be read or written raises InvalidPaymentRequest.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from routstr.ecash import bech32, cbor, strictjson, tlv
from routstr.ecash.errors import InvalidPaymentRequest

CREQ_CHARS_MAX: Final = 64 * 1024
CREQ_B_PREFIX: Final = "creqb"
AMOUNT_END: Final = 2**64
TRANSPORT_KINDS: Final = ("nostr", "post")
LOCK_KINDS: Final = ("P2PK", "HTLC")
RELAY_TAG: Final = "r"

_BASE64: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_STANDARD_TO_URL: Final = str.maketrans("+/", "-_")

Tags = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """A way to deliver the payment (NUT-18): `nostr` or `post`, where to, and tags."""

    kind: str
    target: str
    tags: Tags = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The condition that the paid proofs must carry (NUT-10): its kind, data and tags."""

    kind: str
    data: str
    tags: Tags = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRequest:
    """What somebody wants to be paid (NUT-18); `amount` in `unit`, no transport means in-band."""

    id: str | None = None
    amount: int | None = None
    unit: str | None = None
    single_use: bool | None = None
    mints: tuple[str, ...] = ()
    description: str | None = None
    transports: tuple[Transport, ...] = ()
    lock: Lock | None = None

    def __post_init__(self) -> None:
        """An amount without a unit means nothing (NUT-18)."""
        if self.amount is None:
            return
        if self.unit is None or not 0 <= self.amount < AMOUNT_END:
            raise InvalidPaymentRequest("an amount needs a unit, and fits 64 bits")


def decode_request(text: str) -> PaymentRequest:
    """Read either form, `creqB` in either case. Raises InvalidPaymentRequest."""
    if len(text) > CREQ_CHARS_MAX:
        raise InvalidPaymentRequest("the payment request is too long")
    if text.startswith("creqA"):
        return _read_a(text[5:])
    try:
        return _read_b(text)
    except (bech32.InvalidBech32, tlv.InvalidTlv) as error:
        raise InvalidPaymentRequest(str(error)) from None


# ── creqA ─────────────────────────────────────────────────────────────────────────────────────


def encode_request_a(request: PaymentRequest) -> str:
    """The request as `creqA`, base64url without padding (NUT-18)."""
    fields: dict[str, object] = {
        "i": request.id,
        "a": request.amount,
        "u": request.unit,
        "s": request.single_use,
        "m": list(request.mints) or None,
        "d": request.description,
        "t": [_transport_map(each) for each in request.transports] or None,
    }
    if request.lock is not None:
        fields["nut10"] = _lock_map(request.lock)
    present = {name: value for name, value in fields.items() if value is not None}
    try:
        data = cbor.encode(present)
    except cbor.InvalidCbor:
        raise InvalidPaymentRequest("a value does not fit creqA") from None
    return "creqA" + base64.urlsafe_b64encode(data).decode().rstrip("=")


def _transport_map(transport: Transport) -> dict[str, object]:
    fields: dict[str, object] = {"t": transport.kind, "a": transport.target}
    if transport.tags:
        fields["g"] = _tag_lists(transport.tags)
    return fields


def _lock_map(lock: Lock) -> dict[str, object]:
    fields: dict[str, object] = {"k": lock.kind, "d": lock.data}
    if lock.tags:
        fields["t"] = _tag_lists(lock.tags)
    return fields


def _tag_lists(tags: Tags) -> list[list[str]]:
    return [list(tag) for tag in tags]


def _read_a(text: str) -> PaymentRequest:
    bare = text.translate(_STANDARD_TO_URL)
    if _BASE64.fullmatch(bare) is None:
        raise InvalidPaymentRequest("creqA is base64")
    bare = bare.rstrip("=")
    try:
        data = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
        fields = _map(cbor.decode(data))
    except (binascii.Error, cbor.InvalidCbor):
        raise InvalidPaymentRequest("creqA is base64 of a CBOR map") from None
    lock = cbor.field(fields, "nut10")
    single_use, amount = cbor.field(fields, "s"), cbor.field(fields, "a")
    if single_use is not None and not isinstance(single_use, bool):
        raise InvalidPaymentRequest("s is true or false")
    if amount is not None and (not isinstance(amount, int) or isinstance(amount, bool)):
        raise InvalidPaymentRequest("a is a number")
    return PaymentRequest(
        id=_text_or_none(fields, "i"),
        amount=amount,
        unit=_text_or_none(fields, "u"),
        single_use=single_use,
        mints=tuple(_text(each) for each in _items(fields, "m")),
        description=_text_or_none(fields, "d"),
        transports=tuple(_transport_from(_map(each)) for each in _items(fields, "t")),
        lock=None if lock is None else _lock_from(_map(lock)),
    )


def _transport_from(fields: dict[object, object]) -> Transport:
    return Transport(
        kind=_text(fields.get("t")), target=_text(fields.get("a")), tags=_tags(fields, "g")
    )


def _lock_from(fields: dict[object, object]) -> Lock:
    return Lock(kind=_text(fields.get("k")), data=_text(fields.get("d")), tags=_tags(fields, "t"))


def _map(value: object) -> dict[object, object]:
    if not isinstance(value, dict):
        raise InvalidPaymentRequest("a field is not a map")
    return value


def _items(fields: dict[object, object], name: str) -> list[object]:
    value = cbor.field(fields, name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidPaymentRequest("a field is not a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not strictjson.is_text(value):
        raise InvalidPaymentRequest("a field is not a text")
    return value


def _text_or_none(fields: dict[object, object], name: str) -> str | None:
    value = cbor.field(fields, name)
    return None if value is None else _text(value)


def _tags(fields: dict[object, object], name: str) -> Tags:
    tags: list[tuple[str, ...]] = []
    for tag in _items(fields, name):
        if not isinstance(tag, list) or not tag:
            raise InvalidPaymentRequest("a tag is a list of texts")
        tags.append(tuple(_text(word) for word in tag))
    return tuple(tags)


# ── creqB ─────────────────────────────────────────────────────────────────────────────────────


def encode_request_b(request: PaymentRequest) -> str:
    """The request as `creqB` in upper case, which QR codes store best (NUT-26)."""
    try:
        data = _write_b(request)
    except (tlv.InvalidTlv, UnicodeEncodeError):
        raise InvalidPaymentRequest("a value does not fit creqB") from None
    return bech32.encode(CREQ_B_PREFIX, data, bech32.Checksum.BECH32M).upper()


def _write_b(request: PaymentRequest) -> bytes:
    parts: list[bytes] = []
    if request.id is not None:
        parts.append(tlv.record(1, request.id.encode()))
    if request.amount is not None:
        parts.append(tlv.record(2, request.amount.to_bytes(8)))
    if request.unit is not None:
        parts.append(tlv.record(3, b"\x00" if request.unit == "sat" else request.unit.encode()))
    if request.single_use is not None:
        parts.append(tlv.record(4, bytes([request.single_use])))
    parts += [tlv.record(5, mint.encode()) for mint in request.mints]
    if request.description is not None:
        parts.append(tlv.record(6, request.description.encode()))
    parts += [tlv.record(7, _write_transport(each)) for each in request.transports]
    if request.lock is not None:
        lock = request.lock
        head = tlv.record(1, _kind_byte(lock.kind, LOCK_KINDS)) + tlv.record(2, lock.data.encode())
        parts.append(tlv.record(8, head + _write_tags(lock.tags)))
    return b"".join(parts)


def _write_transport(transport: Transport) -> bytes:
    head = tlv.record(1, _kind_byte(transport.kind, TRANSPORT_KINDS))
    if transport.kind != "nostr":
        head += tlv.record(2, transport.target.encode())
        return head + _write_tags(transport.tags)
    key, relays = tlv.nostr_target(transport.target)
    relay_tags = tuple((RELAY_TAG, relay) for relay in relays)
    return head + tlv.record(2, key) + _write_tags((*transport.tags, *relay_tags))


def _write_tags(tags: Tags) -> bytes:
    return b"".join(tlv.record(3, tlv.tag_value(tag)) for tag in tags)


def _kind_byte(kind: str, kinds: Sequence[str]) -> bytes:
    if kind not in kinds:
        raise InvalidPaymentRequest("creqB has no number for this kind")
    return bytes([kinds.index(kind)])


def _read_b(text: str) -> PaymentRequest:
    prefix, data = bech32.decode(text, bech32.Checksum.BECH32M)
    if prefix != CREQ_B_PREFIX:
        raise InvalidPaymentRequest("a payment request starts with creqA or creqB")
    fields = _grouped(data)
    last = {kind: values[-1] for kind, values in fields.items()}
    return PaymentRequest(
        id=tlv.text(last[1]) if 1 in last else None,
        amount=tlv.number(last[2], 8) if 2 in last else None,
        unit=_unit(last[3]) if 3 in last else None,
        single_use=tlv.number(last[4], 1) == 1 if 4 in last else None,
        mints=tuple(tlv.text(value) for value in fields.get(5, ())),
        description=tlv.text(last[6]) if 6 in last else None,
        transports=_read_transports(fields.get(7, [])),
        lock=_read_lock(last[8]) if 8 in last else None,
    )


def _unit(value: bytes) -> str:
    return "sat" if value == b"\x00" else tlv.text(value)


def _read_transports(values: Sequence[bytes]) -> tuple[Transport, ...]:
    """The transports of known kinds; the payer just does not take the others."""
    known = tuple(each for value in values if (each := _read_transport(value)) is not None)
    if values and not known:
        # No transport at all would read as in-band.
        raise InvalidPaymentRequest("no transport's kind is known")
    return known


def _read_transport(value: bytes) -> Transport | None:
    fields = _grouped(value)
    if 1 not in fields or 2 not in fields:
        raise InvalidPaymentRequest("a transport has a kind and a target")
    number, target = tlv.number(fields[1][0], 1), fields[2][0]
    tags = tuple(tlv.tag_of(each) for each in fields.get(3, ()))
    if number >= len(TRANSPORT_KINDS):
        return None
    kind = TRANSPORT_KINDS[number]
    if kind != "nostr":
        return Transport(kind=kind, target=tlv.text(target), tags=tags)
    relays = [relay for tag in tags if tag[0] == RELAY_TAG for relay in tag[1:]]
    others = tuple(tag for tag in tags if tag[0] != RELAY_TAG)
    return Transport(kind=kind, target=tlv.nostr_address(target, relays), tags=others)


def _read_lock(value: bytes) -> Lock:
    fields = _grouped(value)
    if 1 not in fields or 2 not in fields:
        raise InvalidPaymentRequest("a lock has a kind and data")
    number = tlv.number(fields[1][0], 1)
    if number >= len(LOCK_KINDS):
        # Skipping it would turn a locked request into an open one.
        raise InvalidPaymentRequest("the lock's kind is not known")
    return Lock(
        kind=LOCK_KINDS[number],
        data=tlv.text(fields[2][0]),
        tags=tuple(tlv.tag_of(each) for each in fields.get(3, ())),
    )


def _grouped(data: bytes) -> dict[int, list[bytes]]:
    fields: dict[int, list[bytes]] = {}
    for kind, value in tlv.records(data):
        fields.setdefault(kind, []).append(value)
    return fields
