"""Mint quotes of the model mint (NUT-04, NUT-20, NUT-23): invoices that a test pays, or not.

mint.quotes.pay(bolt11)                              # somebody pays it
mint.quotes.change = {"amount": 1}                   # the next new quote says that instead
"""

import hashlib
import time
from dataclasses import dataclass, field

from routstr.ecash import p2pk
from routstr.ecash.proof import BlindedMessage
from tests.fakes.invoices import invoice
from tests.fakes.mint_ledger import JsonObject, MintLedger, Refused

MSAT = {"sat": 1000, "msat": 1}
TTL_S = 3600


@dataclass(slots=True)
class Quote:
    """One quote; `state` is the protocol's."""

    id: str = field(repr=False)
    bolt11: str = field(repr=False)
    amount: int
    unit: str
    pubkey: str
    state: str = "UNPAID"

    def shown(self) -> JsonObject:
        return {
            "quote": self.id,
            "request": self.bolt11,
            "amount": self.amount,
            "unit": self.unit,
            "state": self.state,
            "expiry": int(time.time()) + TTL_S,
            "pubkey": self.pubkey,
        }


class MintQuotes:
    """All quotes of a mint, newest last."""

    def __init__(self, ledger: MintLedger) -> None:
        self.all: list[Quote] = []
        self.change: JsonObject = {}
        self._ledger = ledger

    def pay(self, bolt11: str) -> Quote:
        quote = next(each for each in self.all if each.bolt11 == bolt11)
        quote.state = "PAID"
        return quote

    def request(self, request: JsonObject) -> JsonObject:
        """POST /v1/mint/quote/bolt11."""
        amount, unit = request["amount"], str(request["unit"])
        assert isinstance(amount, int)
        name = self._ledger.draw()
        bolt11 = invoice(
            amount * MSAT[unit],
            payment_hash=hashlib.sha256(name.encode()).digest(),
            created_at=int(time.time()),
        )
        quote = Quote(f"quote-{name}", bolt11, amount, unit, str(request["pubkey"]))
        self.all.append(quote)
        change, self.change = self.change, {}
        return quote.shown() | change

    def show(self, name: str) -> JsonObject:
        """GET /v1/mint/quote/bolt11/{quote}."""
        return self._find(name).shown()

    def mint(self, request: JsonObject) -> JsonObject:
        """POST /v1/mint/bolt11: all checks, then all effects."""
        quote, outputs = self._find(str(request["quote"])), request["outputs"]
        assert isinstance(outputs, list)
        self._ledger.check_outputs(outputs)
        if quote.state == "ISSUED":
            raise Refused(20002, "quote already issued")
        if quote.state != "PAID":
            raise Refused(20001, "quote not paid")
        if sum(int(each["amount"]) for each in outputs) != quote.amount:
            raise Refused(11000, "amount to mint does not match quote amount")
        messages = [
            BlindedMessage(amount=each["amount"], keyset_id=each["id"], b_=each["B_"])
            for each in outputs
        ]
        signature = str(request.get("signature"))
        if not p2pk.verify_quote(quote.id, messages, signature, quote.pubkey):
            raise Refused(20008, "signature for mint request is invalid")
        quote.state = "ISSUED"
        return {"signatures": [self._ledger.sign(each) for each in outputs]}

    def _find(self, name: str) -> Quote:
        for quote in self.all:
            if quote.id == name:
                return quote
        raise Refused(0, "quote not found")
