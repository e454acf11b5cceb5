"""Cashu tokens (NUT-00): `cashuA` is JSON (V3), `cashuB` is CBOR (V4).

What comes in is hostile until read whole: `decode_token` raises InvalidToken or TokenZeroValue and
nothing else, and no message ever holds a piece of the token. What a token says about its keysets
can only be judged with the mint's keysets at hand; that is `resolve_ids`.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from routstr.ecash import cbor, strictjson
from routstr.ecash.amounts import AMOUNT_MAX
from routstr.ecash.bdhke import is_point, y_of
from routstr.ecash.errors import InvalidSecret
from routstr.ecash.keyset import UnknownKeyset, find_keyset, is_keyset_id, short_id
from routstr.ecash.proof import Dleq, Keyset, Proof
from routstr.ecash.secret import SECRET_CHARS_MAX, parse_secret
from routstr.errors import InvalidToken, TokenZeroValue

HEADER_BYTES_MAX: Final = 16 * 1024
BODY_BYTES_MAX: Final = 128 * 1024
PROOFS_MAX: Final = 100
MINT_URL_CHARS_MAX: Final = 512
UNIT_CHARS_MAX: Final = 32
DEFAULT_UNIT: Final = "sat"  # V3 may leave the unit out

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_SCALAR: Final = re.compile(r"[0-9a-f]{64}")

__all__ = [
    "BODY_BYTES_MAX",
    "HEADER_BYTES_MAX",
    "PROOFS_MAX",
    "Token",
    "UnknownKeyset",
    "decode_token",
    "encode_token_v3",
    "encode_token_v4",
    "resolve_ids",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Proofs of one mint and one unit; amounts in that unit."""

    mint_url: str
    unit: str
    proofs: tuple[Proof, ...]
    memo: str | None = field(default=None, repr=False)

    @property
    def amount(self) -> int:
        """The sum of the proofs, in the token's unit, before any fee."""
        return sum(proof.amount for proof in self.proofs)

    def ys(self) -> tuple[str, ...]:
        """The proofs' names in the token's order: as a set they are the token's identity."""
        return tuple(y_of(proof.secret) for proof in self.proofs)


# ── in ────────────────────────────────────────────────────────────────────────────────────────


def decode_token(text: str, *, bytes_max: int) -> Token:
    """Read a token of at most `bytes_max` characters (NUT-00 V3 and V4).

    At most 100 proofs, one mint, one unit, no secret twice, and so no Y twice. Keyset ids may
    still be short ones: see `resolve_ids`. Incoming witnesses are dropped: we unlock with our own.
    Raises InvalidToken, or TokenZeroValue for a token without value.
    """
    if len(text) > bytes_max:
        raise InvalidToken("The Cashu token is too large.")
    body = text.removeprefix("cashu:")
    if body.startswith("cashuA"):
        token = _read_v3(_from_base64url(body[6:]))
    elif body.startswith("cashuB"):
        token = _read_v4(_from_base64url(body[6:]))
    else:
        raise InvalidToken("A Cashu token starts with cashuA or cashuB.")
    _check_value(token)
    return token


def resolve_ids(token: Token, keysets: Iterable[Keyset]) -> Token:
    """The token with full keyset ids, checked against its mint's keysets, active or not.

    Raises UnknownKeyset (refresh the keysets once and try again), or InvalidToken if a keyset is
    of another unit or has no key for a proof's amount.
    """
    known = tuple(keysets)
    found = {name: find_keyset(name, known) for name in {each.keyset_id for each in token.proofs}}
    if any(each.unit != token.unit for each in found.values()):
        raise InvalidToken("The token's unit is not the unit of its keysets.")
    if any(each.amount not in found[each.keyset_id].keys for each in token.proofs):
        raise InvalidToken("The token has an amount that its keyset does not have.")
    return replace(
        token,
        proofs=tuple(replace(each, keyset_id=found[each.keyset_id].id) for each in token.proofs),
    )


# ── out ───────────────────────────────────────────────────────────────────────────────────────


def encode_token_v4(token: Token, *, short_ids: bool = False, include_dleq: bool = False) -> str:
    """The token as `cashuB` without padding (NUT-00 V4), proofs grouped by keyset.

    `include_dleq` adds e, s and r where a proof has all three. Short ids save 25 bytes a keyset;
    they need full ids here. Witnesses stay behind. Raises UnsupportedKeyset.
    """
    groups: dict[str, list[dict[str, object]]] = {}
    for proof in token.proofs:
        entry: dict[str, object] = {
            "a": proof.amount,
            "s": proof.secret,
            "c": bytes.fromhex(proof.c),
        }
        if include_dleq and proof.dleq is not None and proof.dleq.r is not None:
            dleq = {"e": proof.dleq.e, "s": proof.dleq.s, "r": proof.dleq.r}
            entry["d"] = {name: bytes.fromhex(value) for name, value in dleq.items()}
        groups.setdefault(proof.keyset_id, []).append(entry)
    value: dict[str, object] = {
        "t": [
            {"i": bytes.fromhex(short_id(name) if short_ids else name), "p": entries}
            for name, entries in groups.items()
        ]
    }
    if token.memo is not None:
        value["d"] = token.memo
    value |= {"m": token.mint_url, "u": token.unit}
    return "cashuB" + _to_base64url(cbor.encode(value))


def encode_token_v3(token: Token, *, include_dleq: bool = False) -> str:
    """The token as `cashuA` without padding (NUT-00 V3), for wallets that know no V4."""
    proofs: list[dict[str, object]] = []
    for proof in token.proofs:
        entry: dict[str, object] = {
            "amount": proof.amount,
            "id": proof.keyset_id,
            "secret": proof.secret,
            "C": proof.c,
        }
        if include_dleq and proof.dleq is not None and proof.dleq.r is not None:
            entry["dleq"] = {"e": proof.dleq.e, "s": proof.dleq.s, "r": proof.dleq.r}
        proofs.append(entry)
    value: dict[str, object] = {
        "token": [{"mint": token.mint_url, "proofs": proofs}],
        "unit": token.unit,
    }
    if token.memo is not None:
        value["memo"] = token.memo
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return "cashuA" + _to_base64url(text.encode())


# ── the two formats ───────────────────────────────────────────────────────────────────────────


def _read_v3(data: bytes) -> Token:
    try:
        value = strictjson.decode(data.decode())
    except ValueError:  # not UTF-8, or not JSON we read
        raise InvalidToken("The Cashu token is not valid JSON.") from None
    fields = _mapping(value)
    groups = [_mapping(group) for group in _list(fields.get("token"))]
    if len({_text(group.get("mint"), MINT_URL_CHARS_MAX) for group in groups}) > 1:
        raise InvalidToken("A token of several mints is not accepted.")
    if not groups:
        raise TokenZeroValue
    entries = [_mapping(each) for group in groups for each in _list(group.get("proofs"))]
    _check_count(len(entries))
    unit, memo = fields.get("unit"), fields.get("memo")
    return Token(
        mint_url=_text(groups[0].get("mint"), MINT_URL_CHARS_MAX),
        unit=DEFAULT_UNIT if unit is None else _text(unit, UNIT_CHARS_MAX),
        proofs=tuple(_proof_v3(entry) for entry in entries),
        memo=_memo(memo),
    )


def _proof_v3(entry: dict[object, object]) -> Proof:
    dleq: Dleq | None = None
    if entry.get("dleq") is not None:
        fields = _mapping(entry["dleq"])
        r = fields.get("r")
        dleq = Dleq(
            e=_scalar(_hex(fields.get("e"))),
            s=_scalar(_hex(fields.get("s"))),
            r=None if r is None else _scalar(_hex(r)),
        )
    return Proof(
        amount=_amount(entry.get("amount")),
        keyset_id=_keyset_id(_hex(entry.get("id"))),
        secret=_secret(entry.get("secret")),
        c=_point(_hex(entry.get("C"))),
        dleq=dleq,
    )


def _read_v4(data: bytes) -> Token:
    try:
        fields = _mapping(cbor.decode(data))
    except cbor.InvalidCbor:
        raise InvalidToken("The Cashu token is not valid CBOR.") from None
    groups = [_mapping(group) for group in _list(fields.get("t"))]
    entries = [
        (_keyset_id(_bytes(group.get("i"))), _mapping(entry))
        for group in groups
        for entry in _list(group.get("p"))
    ]
    _check_count(len(entries))
    return Token(
        mint_url=_text(fields.get("m"), MINT_URL_CHARS_MAX),
        unit=_text(fields.get("u"), UNIT_CHARS_MAX),
        proofs=tuple(_proof_v4(keyset_id, entry) for keyset_id, entry in entries),
        memo=_memo(cbor.field(fields, "d")),
    )


def _proof_v4(keyset_id: str, entry: dict[object, object]) -> Proof:
    dleq: Dleq | None = None
    given = cbor.field(entry, "d")
    if given is not None:
        fields = _mapping(given)
        e, s, r = (_scalar(_bytes(fields.get(name))) for name in ("e", "s", "r"))
        dleq = Dleq(e=e, s=s, r=r)
    return Proof(
        amount=_amount(entry.get("a")),
        keyset_id=keyset_id,
        secret=_secret(entry.get("s")),
        c=_point(_bytes(entry.get("c"))),
        dleq=dleq,
    )


# ── what every field must be ──────────────────────────────────────────────────────────────────


def _check_count(count: int) -> None:
    if count > PROOFS_MAX:
        raise InvalidToken(f"A token holds at most {PROOFS_MAX} proofs.")


def _check_value(token: Token) -> None:
    if len({proof.secret for proof in token.proofs}) != len(token.proofs):
        raise InvalidToken("The token holds a proof twice.")
    if token.amount == 0:
        raise TokenZeroValue
    if any(proof.amount == 0 for proof in token.proofs) or token.amount > AMOUNT_MAX:
        raise InvalidToken("The token has an amount out of range.")


def _mapping(value: object) -> dict[object, object]:
    if not isinstance(value, dict):
        raise InvalidToken
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise InvalidToken
    return value


def _text(value: object, chars_max: int) -> str:
    if not isinstance(value, str) or not strictjson.is_text(value):
        raise InvalidToken
    if not 0 < len(value) <= chars_max:
        raise InvalidToken("The token has a text that is empty or too long.")
    return value


def _memo(value: object) -> str | None:
    if value is None or value == "":
        return None
    return _text(value, BODY_BYTES_MAX)


def _bytes(value: object) -> str:
    """CBOR bytes as hex."""
    if not isinstance(value, bytes):
        raise InvalidToken
    return value.hex()


def _hex(value: object) -> str:
    """JSON hex in the one case that we use; the patterns behind judge it."""
    if not isinstance(value, str):
        raise InvalidToken
    return value.lower()


def _amount(value: object) -> int:
    # bool is an int in Python, and True would pass for 1.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= AMOUNT_MAX:
        raise InvalidToken("The token has an amount out of range.")
    return value


def _keyset_id(text: str) -> str:
    if not is_keyset_id(text):
        raise InvalidToken("The token's keyset id is malformed or of an unsupported version.")
    return text


def _secret(value: object) -> str:
    text = _text(value, SECRET_CHARS_MAX)
    try:
        parse_secret(text)
    except InvalidSecret:
        raise InvalidToken("The token has a secret with an unclear spending condition.") from None
    return text


def _point(text: str) -> str:
    if not is_point(text):
        raise InvalidToken("The token has a signature that is no point on the curve.")
    return text


def _scalar(text: str) -> str:
    # Its range is the DLEQ check's affair: an impossible scalar is a proof that fails.
    if _SCALAR.fullmatch(text) is None:
        raise InvalidToken("The token has a malformed DLEQ proof.")
    return text


def _from_base64url(text: str) -> bytes:
    # Python skips foreign characters unless they are ruled out first.
    if _BASE64URL.fullmatch(text) is None:
        raise InvalidToken("The Cashu token is not base64url.")
    if text.endswith("=") and len(text) % 4:
        raise InvalidToken("The Cashu token is not base64url.")
    bare = text.rstrip("=")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        raise InvalidToken("The Cashu token is not base64url.") from None


def _to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
