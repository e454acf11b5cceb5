"""A customer's wallet that is not ours: `wallet.mjs`, on cashu-ts, as a process of its own."""

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

PROGRAM: Final = Path(__file__).with_name("wallet.mjs")
PACKAGES: Final = Path(__file__).with_name("node_modules")

ANSWER_TIMEOUT_S: Final = 30
ANSWER_BYTES_MAX: Final = 1024 * 1024

Answer = dict[str, Any]  # the wallet's JSON


class WalletRefused(Exception):
    """cashu-ts, or the mint it asked, said no; `code` is the mint's (11001: already spent)."""

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A token as cashu-ts reads it, in sat; `fee` is what redeeming it costs.

    `dleqs` is how many of its proofs carry a DLEQ that verifies (NUT-12).
    """

    mint: str
    unit: str
    memo: str | None
    amount: int
    fee: int
    proofs: int
    dleqs: int
    secrets: Sequence[str]


class CashuTs:
    """A wallet at one mint, in memory; amounts are in sat. One call at a time."""

    def __init__(self, mint_url: str) -> None:
        self.mint_url = mint_url
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        node = shutil.which("node")
        assert node is not None, "these tests need Node.js"
        assert PACKAGES.exists(), "make test-interop sets up what these tests need"
        self._process = await asyncio.create_subprocess_exec(
            node, str(PROGRAM), self.mint_url,
            env={"PATH": "/usr/bin:/bin"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=ANSWER_BYTES_MAX,
        )  # fmt: skip
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.kill()
        await process.communicate()  # the pipes end with it

    async def mint(self, amount: int) -> None:
        """Buy ecash of the mint."""
        await self.collect(await self.invoice(amount))

    async def invoice(self, amount: int) -> str:
        """An invoice of the mint, for somebody else to pay."""
        return str((await self._do("invoice", amount=amount))["invoice"])

    async def collect(self, invoice: str) -> None:
        """Take the ecash of an invoice that was paid; the make-believe mints see to that."""
        await self._do("collect", invoice=invoice)

    async def balance(self) -> int:
        """What it holds, before the mint's fees."""
        return int((await self._do("balance"))["balance"])

    async def send(
        self, amount: int, *, version: int = 4, lock: Mapping[str, object] | None = None
    ) -> str:
        """A token worth exactly `amount`, V3 or V4; the fee for making change is the wallet's.

        `lock` is what cashu-ts calls P2PKOptions: pubkey, locktime, refundKeys.
        """
        return str((await self._do("send", amount=amount, version=version, lock=lock))["token"])

    async def receive(
        self, token: str, *, private_key: str | None = None, is_dleq_needed: bool = False
    ) -> int:
        """Swap a token for proofs of its own; what it was worth after the fee."""
        answer = await self._do(
            "receive", token=token, privateKey=private_key, isDleqNeeded=is_dleq_needed
        )
        return int(answer["amount"])

    async def decode(self, token: str) -> Decoded:
        """Read a token, and judge its DLEQs with the mint's keys."""
        return Decoded(**await self._do("decode", token=token))

    async def states(self, token: str) -> set[str]:
        """What the mint says of a token's proofs: UNSPENT, PENDING, SPENT."""
        return set((await self._do("states", token=token))["states"])

    async def read_request(self, text: str) -> Answer:
        """A payment request, `creqA` or `creqB`, as cashu-ts reads it and would write it."""
        return await self._do("request", text=text)

    async def pay(self, text: str) -> str:
        """The token that a payment request asks for, under the lock it asks for."""
        return str((await self._do("pay", text=text))["token"])

    async def _do(self, deed: str, **fields: object) -> Answer:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": deed, **fields}).encode() + b"\n")
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            line = await process.stdout.readline()
        assert line, f"the wallet died of {deed}; its last words are above"
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise WalletRefused(answer["error"]["code"], answer["error"]["message"])
        done: Answer = answer["ok"]
        return done
