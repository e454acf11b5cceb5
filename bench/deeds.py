"""What a customer does while the node is killed, and what must be true of it afterwards.

A deed is prepared on a node that is already armed, then done, which kills the node, and then
repeated with the same Idempotency-Key, as a client does whose connection broke.
"""

import secrets
from dataclasses import dataclass, field
from typing import Final, Protocol

import httpx

from bench.finding import require
from bench.scene import Answer, Customer, ok
from demo.wallet import Wallet
from routstr.ecash.token import BODY_BYTES_MAX, decode_token

MSAT: Final = 1_000  # in a sat
KEY_SAT: Final = 100
TOPUP_SAT: Final = 50
EXACT_SAT: Final = 50
# The coins of a deposit make every smaller amount. Without its only 2, they cannot make 3.
MISSING_COIN_SAT: Final = 2
SWAP_SAT: Final = 3


class Deed(Protocol):
    """One kind of request that moves money. `points` are failpoints with the hit that counts."""

    @property
    def name(self) -> str:
        """What it is called in the table."""

    @property
    def points(self) -> tuple[str, ...]:
        """Where the node is killed."""

    async def prepare(self, customer: Customer) -> None:
        """Everything up to the request."""

    async def do(self, customer: Customer) -> httpx.Response:
        """The request, each time the same."""

    async def check_before_repeat(self, customer: Customer) -> None:
        """The node has come to rest by itself: what must be true already."""

    async def check_after_repeat(self, customer: Customer, answer: Answer) -> None:
        """The repeat was answered: the customer has it all, once. Ends with no token unclaimed."""


def fee_sat(customer: Customer, token: str) -> int:
    """What redeeming costs at the scene's mint, by the rule of NUT-02."""
    proofs = len(decode_token(token, bytes_max=BODY_BYTES_MAX).proofs)
    return -(-proofs * customer.fee_ppk // 1_000)


@dataclass(slots=True, kw_only=True)
class Create:
    """A key from a token."""

    name: str = "create"
    points: tuple[str, ...] = (
        "deposit.begun:1",
        "swap.prepared:1",
        "swap.sent:1",
        "swap.answered:1",
        "deposit.signed:1",
        "deposit.credited:1",
    )
    token: str = field(default="", repr=False)
    repeat: str = field(default_factory=lambda: secrets.token_hex(8))

    async def prepare(self, customer: Customer) -> None:
        self.token = await customer.wallet.send(KEY_SAT)

    async def do(self, customer: Customer) -> httpx.Response:
        return await customer.call(
            "POST",
            "/v1/balance/create",
            {"initial_balance_token": self.token},
            idempotency_key=self.repeat,
        )

    async def check_before_repeat(self, customer: Customer) -> None:
        """The token is a credential that shows its key: credited."""
        answer = ok(await customer.call("GET", "/v1/balance/info", credential=self.token))
        require("the credit at rest", answer["balance"], self._credit_msat(customer))

    async def check_after_repeat(self, customer: Customer, answer: Answer) -> None:
        customer.key = answer["api_key"]
        require("the balance", (await customer.info())["balance"], self._credit_msat(customer))

    def _credit_msat(self, customer: Customer) -> int:
        return (KEY_SAT - fee_sat(customer, self.token)) * MSAT


@dataclass(slots=True, kw_only=True)
class TopUp:
    """More money on a key that has some."""

    name: str = "top-up"
    points: tuple[str, ...] = (
        "deposit.begun:2",
        "swap.prepared:2",
        "swap.sent:2",
        "swap.answered:2",
        "deposit.signed:2",
        "deposit.credited:2",
    )
    token: str = field(default="", repr=False)
    repeat: str = field(default_factory=lambda: secrets.token_hex(8))
    before_msat: int = 0

    async def prepare(self, customer: Customer) -> None:
        self.before_msat = await customer.open_key(KEY_SAT)
        self.token = await customer.wallet.send(TOPUP_SAT)

    async def do(self, customer: Customer) -> httpx.Response:
        return await customer.call(
            "POST", "/v1/balance/topup", {"cashu_token": self.token}, idempotency_key=self.repeat
        )

    async def check_before_repeat(self, customer: Customer) -> None:
        await self._check_balance(customer)

    async def check_after_repeat(self, customer: Customer, answer: Answer) -> None:
        await self._check_balance(customer)
        credit_msat = (TOPUP_SAT - fee_sat(customer, self.token)) * MSAT
        require("the credit told", answer["msats"], credit_msat)

    async def _check_balance(self, customer: Customer) -> None:
        wanted = self.before_msat + (TOPUP_SAT - fee_sat(customer, self.token)) * MSAT
        require("the balance", (await customer.info())["balance"], wanted)


@dataclass(slots=True, kw_only=True)
class Withdraw:
    """Ecash out of a key, from coins at hand."""

    name: str = "withdraw, exact coins"
    points: tuple[str, ...] = ("withdraw.completed:1",)
    amount_sat: int = EXACT_SAT
    repeat: str | None = field(default_factory=lambda: secrets.token_hex(8))
    before_msat: int = 0

    async def prepare(self, customer: Customer) -> None:
        self.before_msat = await customer.open_key(KEY_SAT)

    async def do(self, customer: Customer) -> httpx.Response:
        return await customer.call(
            "POST",
            "/v1/balance/refund",
            {"amount_sats": self.amount_sat},
            idempotency_key=self.repeat,
        )

    async def check_before_repeat(self, customer: Customer) -> None:
        """The debit stands, or nothing was begun: never something in between."""
        balance_msat = (await customer.info())["balance"]
        require("whether it was debited", balance_msat < self.before_msat, True)

    async def check_after_repeat(self, customer: Customer, answer: Answer) -> None:
        self.check_fee(customer, answer["fee_msats"])
        wanted = self.before_msat - self.amount_sat * MSAT - answer["fee_msats"]
        require("the balance", (await customer.info())["balance"], wanted)
        require("the amount told", answer["sats"], str(self.amount_sat))
        await claim(customer.wallet, answer["token"], self.amount_sat)

    def check_fee(self, customer: Customer, fee_msat: int) -> None:
        require("the fee", fee_msat, 0)


@dataclass(slots=True, kw_only=True)
class WithdrawBySwap(Withdraw):
    """Ecash out of a key, when the coins at hand do not make the amount."""

    name: str = "withdraw by a swap"
    points: tuple[str, ...] = (
        "withdraw.begun:1",
        "swap.prepared:2",
        "swap.sent:2",
        "swap.answered:2",
        "withdraw.signed:1",
        "withdraw.issued:1",
    )
    amount_sat: int = SWAP_SAT

    async def prepare(self, customer: Customer) -> None:
        opened_msat = await customer.open_key(KEY_SAT)
        answer = ok(
            await customer.call("POST", "/v1/balance/refund", {"amount_sats": MISSING_COIN_SAT})
        )
        await claim(customer.wallet, answer["token"], MISSING_COIN_SAT)
        self.before_msat = opened_msat - MISSING_COIN_SAT * MSAT

    def check_fee(self, customer: Customer, fee_msat: int) -> None:
        require("the fee", fee_msat, customer.fee_ppk and MSAT)  # few coins in: one sat, rounded up


@dataclass(slots=True, kw_only=True)
class WithdrawAll(Withdraw):
    """The whole balance, by a client that knows no Idempotency-Key: a repeat brings it again."""

    name: str = "withdraw all, no key"
    repeat: str | None = None

    async def prepare(self, customer: Customer) -> None:
        self.before_msat = await customer.open_key(KEY_SAT)
        self.amount_sat = self.before_msat // MSAT

    async def do(self, customer: Customer) -> httpx.Response:
        return await customer.call("POST", "/v1/balance/refund", {})


async def claim(wallet: Wallet, token: str, amount_sat: int) -> None:
    """Redeem a withdrawn token at the mint."""
    face_sat = decode_token(token, bytes_max=BODY_BYTES_MAX).amount
    require("the token's face value", face_sat, amount_sat)
    await wallet.receive(token)


DEEDS: Final = (Create, TopUp, WithdrawBySwap, Withdraw, WithdrawAll)
