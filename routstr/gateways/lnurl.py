"""Paying a Lightning address: who is asked for an invoice, and whether it is the one asked for.

Laws: an address, a callback and an invoice are a stranger's texts. Each call takes the guarded way
of `gateways.addresses`. An invoice is handed on only if it is over exactly the amount, and, where
it has a description hash, over the hash of the metadata. Nothing here moves money, so every failure
leaves none to look for. Sources: LUD-06, LUD-16.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeGuard

import orjson

from routstr.core.bolt11 import AMOUNT_MSAT_MAX, BadInvoice, decode_invoice
from routstr.errors import InvalidLightningAddress, LightningAddressUnreachable
from routstr.gateways.addresses import (
    ForbiddenTarget,
    OutsideAnswer,
    OutsideFailure,
    OutsideHttp,
    parse_target,
)

ADDRESS_CHARS_MAX: Final = 320
CALLBACK_CHARS_MAX: Final = 2_048
PARAM: Final = "lightning_address"
# LUD-16, lower case only; a first character that is no dot, so that no dot segment can be made.
_USER: Final = re.compile(r"[a-z0-9_+-][a-z0-9._+-]{0,63}")
_DOMAIN: Final = re.compile(r"[^/?#@:\\\[\]]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class PayParams:
    """What an address will take, in msat, and where to ask for the invoice (LUD-06)."""

    min_msat: int
    max_msat: int
    callback: str = field(repr=False)
    metadata_hash: str = field(repr=False)


class LnurlClient:
    """Lightning addresses, over `OutsideHttp`, which must be open while it is used."""

    def __init__(self, http: OutsideHttp) -> None:
        self._http = http

    async def resolve(self, address: str) -> PayParams:
        """What `user@domain` takes (LUD-16).

        Raises InvalidLightningAddress for one that is malformed, forbidden or unknown to its
        domain, LightningAddressUnreachable when the domain gives no usable answer.
        """
        answer = await self._ask(_url_of(address))
        callback, metadata = answer.get("callback"), answer.get("metadata")
        lowest, highest = answer.get("minSendable"), answer.get("maxSendable")
        if answer.get("tag") != "payRequest" or not isinstance(metadata, str):
            raise _unusable()
        if not isinstance(callback, str) or len(callback) > CALLBACK_CHARS_MAX:
            raise _unusable()
        if not _is_amount(lowest) or not _is_amount(highest) or lowest > highest:
            raise _unusable()
        try:
            parse_target(callback)
        except ForbiddenTarget as error:
            raise _unusable() from error
        return PayParams(
            min_msat=lowest,
            max_msat=min(highest, AMOUNT_MSAT_MAX),
            callback=callback,
            metadata_hash=hashlib.sha256(metadata.encode()).hexdigest(),
        )

    async def invoice(self, params: PayParams, amount_msat: int) -> str:
        """An invoice over exactly `amount_msat` (LUD-06), whose expiry the caller judges.

        Raises InvalidLightningAddress for an amount out of range, with the range in its details,
        or a refusal; LightningAddressUnreachable for any other answer.
        """
        if not params.min_msat <= amount_msat <= params.max_msat:
            raise InvalidLightningAddress(
                "The Lightning address does not take that amount.",
                param=PARAM,
                details={"min_msat": params.min_msat, "max_msat": params.max_msat},
            )
        joint = "&" if "?" in params.callback else "?"
        answer = await self._ask(f"{params.callback}{joint}amount={amount_msat}")
        bolt11 = answer.get("pr")
        if not isinstance(bolt11, str):
            raise _unusable()
        try:
            invoice = decode_invoice(bolt11)
        except BadInvoice as error:
            raise _unusable() from error
        if invoice.amount_msat != amount_msat:
            raise _unusable()  # it would take more than was asked, or nothing definite
        if invoice.description_hash not in (None, params.metadata_hash):
            raise _unusable()
        return bolt11

    async def _ask(self, url: str) -> Mapping[str, object]:
        try:
            return _object(await self._http.get(url))
        except ForbiddenTarget as error:
            raise InvalidLightningAddress(param=PARAM) from error
        except OutsideFailure as error:
            raise LightningAddressUnreachable from error


def is_address(text: str) -> bool:
    """Whether a text has the form of a Lightning address (LUD-16); asks nobody."""
    try:
        _url_of(text)
    except InvalidLightningAddress:
        return False
    return True


def _url_of(address: str) -> str:
    """Where LUD-16 says to ask for an address. Raises InvalidLightningAddress."""
    user, at, domain = address.strip().lower().partition("@")
    if (
        len(address) > ADDRESS_CHARS_MAX
        or not at
        or _USER.fullmatch(user) is None
        or _DOMAIN.fullmatch(domain) is None
    ):
        raise InvalidLightningAddress("That is no Lightning address.", param=PARAM)
    return f"https://{domain}/.well-known/lnurlp/{user}"


def _object(answer: OutsideAnswer) -> Mapping[str, object]:
    """The JSON of a 200 that is no refusal; LUD-06 refusals come with any status."""
    try:
        value = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        value = None
    is_refusal = isinstance(value, dict) and value.get("status") == "ERROR"
    if answer.status in (400, 404, 410) or (is_refusal and answer.status < 500):
        raise InvalidLightningAddress(param=PARAM)
    if answer.status != 200 or not isinstance(value, dict):
        raise _unusable()
    return value


def _is_amount(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _unusable() -> LightningAddressUnreachable:
    return LightningAddressUnreachable(
        "The Lightning address gave no usable answer. Nothing was debited."
    )
