"""The demo's story: a customer with 1 000 sat of ecash, from minting it to having the rest back.

Each step compares what the node, the mint and the wallet say with the demo's own books.
"""

import asyncio
import json
import sys
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from demo.books import Books, DoesNotAddUp, Line, expect
from demo.customer import Customer, Reply
from demo.page import Page
from demo.prices import PER_MTOK, PriceList
from demo.process import ROOT
from demo.servers import Node
from demo.stage import MINT, NODE, UPSTREAM, Stage
from demo.wallet import Wallet

MSAT: Final = 1_000  # in a sat
TIMES: Final = "\u00d7"

MINTED_SAT: Final = 1_000
KEY_SAT: Final = 500
TOPUP_SAT: Final = 200
TOKEN_SAT: Final = 100
CHILD_MSAT: Final = 10_000  # what a child key may spend

WALLET: Final = "wallet"
KEY: Final = "key"
ACCOUNT: Final = "token"  # the account that a token opened by being used as an API key

VERIFIER: Final = ROOT / "docs" / "verify_receipt.py"

SMALL: Final = "demo/small"
LARGE: Final = "demo/large"
PROMPT: Final = "Who pays for this answer, and with what?"


@dataclass(slots=True, kw_only=True)
class Story:
    """The customer's wallet, the node's view of the customer, and the books between them."""

    stage: Stage
    page: Page
    wallet: Wallet
    customer: Customer
    prices: PriceList
    books: Books = field(default_factory=Books)
    key: str = ""
    token: str = ""
    history: dict[str, list[int]] = field(default_factory=lambda: {KEY: [], ACCOUNT: []})
    withdrawn: dict[str, str] = field(default_factory=dict)

    async def tell(self) -> None:
        """All of it. Raises StepFailed."""
        self.page.heading()
        await self.mint()
        await self.make_key()
        await self.ask()
        await self.ask_streamed()
        await self.top_up()
        await self.ask_with_token()
        await self.ask_twice_as_child()
        await self.look_back()
        await self.withdraw(KEY, self.key, "Withdraw what is left on the key")
        await self.withdraw(ACCOUNT, self.token, "Withdraw what is left of the token")
        await self.redeem()
        await self.audit()

    async def mint(self) -> None:
        with self.page.step(f"Mint {MINTED_SAT:_} sat of ecash".replace("_", " "), MINT) as entry:
            entry.note("an invoice, which this mint pays by itself")
            await self.wallet.mint(MINTED_SAT)
            self.books.minted_msat = MINTED_SAT * MSAT
            entry.add(self._wallet(self.books.minted_msat))

    async def make_key(self) -> None:
        with self.page.step(f"Make a key from a token of {KEY_SAT} sat", NODE, MINT) as entry:
            entry.note("POST /v1/balance/create")
            token = await self.wallet.send(KEY_SAT)
            entry.add(self._wallet(-KEY_SAT * MSAT, fee_msat=0))
            created = await self.customer.create_key(token)
            self.key = created["api_key"]
            expect("the balance told with the key", created["balance"], KEY_SAT * MSAT)
            entry.add(await self._paid_in(KEY, self.key, KEY_SAT))

    async def ask(self) -> None:
        with self.page.step(f"Chat completion, {SMALL}", NODE, UPSTREAM) as entry:
            reply = await self.customer.chat(self.key, SMALL, PROMPT)
            entry.note(f"“{' '.join(reply.text.split()[:7])} …”")
            entry.note(self._sum(SMALL, reply))
            entry.add(await self._charged(KEY, self.key, SMALL, reply))

    async def ask_streamed(self) -> None:
        with self.page.step(f"Streamed completion, {LARGE}", NODE, UPSTREAM) as entry:
            reply = await self.customer.stream(self.key, LARGE, PROMPT)
            expect("whether it came in pieces", reply.chunks > reply.words_out, True)
            entry.note(f"{reply.chunks} chunks, the usage in the last one")
            entry.note(self._sum(LARGE, reply))
            entry.add(await self._charged(KEY, self.key, LARGE, reply))

    async def top_up(self) -> None:
        with self.page.step(f"Top up with a token of {TOPUP_SAT} sat", NODE, MINT) as entry:
            entry.note("POST /v1/balance/topup")
            token = await self.wallet.send(TOPUP_SAT)
            entry.add(self._wallet(-TOPUP_SAT * MSAT, fee_msat=0))
            credited = await self.customer.top_up(self.key, token)
            expect("the credit told", credited["msats"], TOPUP_SAT * MSAT)
            entry.add(await self._paid_in(KEY, self.key, TOPUP_SAT))

    async def ask_with_token(self) -> None:
        title = f"A token of {TOKEN_SAT} sat as the API key, {SMALL}"
        with self.page.step(title, NODE, UPSTREAM, MINT) as entry:
            self.token = await self.wallet.send(TOKEN_SAT)
            entry.add(self._wallet(-TOKEN_SAT * MSAT, fee_msat=0))
            reply = await self.customer.chat(self.token, SMALL, PROMPT)
            entry.note(self._sum(SMALL, reply))
            # Paid in and spent in one go: nobody could look at the account in between.
            entry.add(self._credited(ACCOUNT, TOKEN_SAT, TOKEN_SAT * MSAT))
            entry.add(await self._charged(ACCOUNT, self.token, SMALL, reply))

    async def ask_twice_as_child(self) -> None:
        with self.page.step("A child key asks twice, and pays once", NODE, UPSTREAM) as entry:
            child = await self.customer.child_key(self.key, limit_msat=CHILD_MSAT)
            asking = (child, SMALL, PROMPT)
            reply, receipt, _ = await self.customer.chat_once(*asking, repeat_key="demo")
            again, copy, is_repeat = await self.customer.chat_once(*asking, repeat_key="demo")
            expect("whether the answer was given again", is_repeat, True)
            expect("the answer given again, with its receipt", (again, copy), (reply, receipt))
            entry.note("the same Idempotency-Key: the same answer")
            told = await verify(self.stage.node, receipt)
            entry.note("its receipt is sound, by docs/verify_receipt.py")
            expect("what the receipt says was charged", told, reply.told_msat)
            entry.add(await self._charged(KEY, self.key, SMALL, reply))
            left_msat = await self.customer.balance_msat(child)
            expect("what the child may still spend", left_msat, CHILD_MSAT - reply.told_msat)

    async def look_back(self) -> None:
        with self.page.step("Read balance and history", NODE) as entry:
            rows = []
            for account, credential in ((KEY, self.key), (ACCOUNT, self.token)):
                found = await self.customer.balance_msat(credential)
                entry.add(self.books.move(account, 0, found))
                rows += await self._check_statement(account, credential)
            paid_in = await self.customer.deposits_sat(self.key)
            expect("what the history says was paid in", paid_in, [KEY_SAT, TOPUP_SAT])
            kinds = [row["type"] for row in rows]
            entry.note(f"{kinds.count('deposit')} deposits, {kinds.count('usage')} requests")

    async def withdraw(self, account: str, credential: str, title: str) -> None:
        with self.page.step(title, NODE, MINT) as entry:
            whole_sat = self.books[account] // MSAT
            refund = await self.customer.withdraw(credential)
            self.withdrawn[account] = refund["token"]
            expect("the token's face value", int(refund["sats"]), whole_sat)
            expect("the fee", refund["fee_msats"], 0)
            found = await self.customer.balance_msat(credential)
            line = self.books.move(account, -whole_sat * MSAT, found, fee_msat=refund["fee_msats"])
            self.history[account].append(line.change_msat)
            await self._check_statement(account, credential)
            entry.note(f"a token of {whole_sat} sat; less than a sat stays")
            entry.add(line)

    async def redeem(self) -> None:
        with self.page.step("Redeem both tokens at the mint", MINT) as entry:
            worth_sat = sum([await self.wallet.receive(each) for each in self.withdrawn.values()])
            entry.note("swapped for coins that only the wallet knows")
            entry.add(self._wallet(worth_sat * MSAT, fee_msat=0))
            for token in self.withdrawn.values():
                states = await self.wallet.token_states(token)
                expect("what the mint says of a redeemed token", states, {"SPENT"})
            self.withdrawn.clear()

    async def audit(self) -> None:
        with self.page.step("routstr audit", NODE) as entry:
            report = await run_audit(self.stage.node)
            owed_msat = self.books[KEY] + self.books[ACCOUNT]
            totals = report["totals"]
            expect("the broken invariants", broken(report), [])
            expect("what the node owes", totals["balances_msat"], owed_msat)
            expect("what the node earned", totals["surplus_msat"], sum(self.books.costs_msat))
            holding = f"{len(report['invariants'])} invariants hold"
            entry.note(f"{holding}; the node's ecash is what it owes and what it earned")

    def check_total(self) -> None:
        """Everything is still there. Raises DoesNotAddUp."""
        expect("all together", self.books.total_msat(), self.books.minted_msat)

    # ── what the steps share ──────────────────────────────────────────────────────────────────

    def _wallet(self, change_msat: int, *, fee_msat: int | None = None) -> Line:
        found_msat = self.wallet.balance * MSAT
        return self.books.move(WALLET, change_msat, found_msat, fee_msat=fee_msat)

    async def _paid_in(self, account: str, credential: str, amount_sat: int) -> Line:
        return self._credited(account, amount_sat, await self.customer.balance_msat(credential))

    def _credited(self, account: str, amount_sat: int, found_msat: int) -> Line:
        line = self.books.move(account, amount_sat * MSAT, found_msat, fee_msat=0)
        self.history[account].append(line.change_msat)
        return line

    async def _charged(self, account: str, credential: str, model: str, reply: Reply) -> Line:
        """What the request cost by the demo's arithmetic, the node's word, and the balance."""
        price = self.prices[model]
        cost_msat = price.cost_msat(words_in=reply.words_in, words_out=reply.words_out)
        expect("the cost told with the answer", reply.told_msat, cost_msat)
        line = self.books.pay(account, cost_msat, await self.customer.balance_msat(credential))
        self.history[account].append(line.change_msat)
        return line

    def _sum(self, model: str, reply: Reply) -> str:
        """The arithmetic of a cost, for a reader."""
        price = self.prices[model]
        cost = price.cost_msat(words_in=reply.words_in, words_out=reply.words_out)
        per_word = [
            f"{Decimal(rate) / PER_MTOK:f}"
            for rate in (price.input_msat_per_mtok, price.output_msat_per_mtok)
        ]
        request = f" + {price.request_msat}" if price.request_msat else ""
        words_in = f"{reply.words_in} in {TIMES} {per_word[0]}"
        words_out = f"{reply.words_out} out {TIMES} {per_word[1]}"
        return f"{words_in} + {words_out}{request} → {cost} msat"

    async def _check_statement(self, account: str, credential: str) -> list[dict[str, Any]]:
        """The node's rows are the demo's, one by one, and each balance follows from the last."""
        rows = await self.customer.statement(credential)
        changes = [row["amount_msats"] for row in rows]
        expect(f"the history of the {account}", changes, self.history[account])
        balance_msat = 0
        for row in rows:
            balance_msat += row["amount_msats"]
            expect("the balance after a row", row["balance_after_msats"], balance_msat)
        expect(f"the balance of the {account}", balance_msat, self.books[account])
        return rows


async def verify(node: Node, receipt: str) -> int:
    """What a receipt says was charged, once a program that knows nothing of the node believes it.

    Raises DoesNotAddUp.
    """
    path = node.directory / "receipt.txt"
    path.write_text(receipt)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(VERIFIER), str(path), stdout=asyncio.subprocess.PIPE
    )
    try:
        told, _ = await process.communicate()
    finally:
        if process.returncode is None:  # we were interrupted
            process.kill()
            await process.wait()
    expect("the exit status of docs/verify_receipt.py", process.returncode, 0)
    return int(told.decode().partition(": ")[2].split()[0])


async def run_audit(node: Node, *options: str) -> dict[str, Any]:
    """`routstr audit --json` beside the running node. Raises DoesNotAddUp if it says no."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "routstr", "audit", "--json", *options,
        env=dict(node.environment()),
        cwd=node.directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        told, complaints = await process.communicate()
    finally:
        if process.returncode is None:  # we were interrupted
            process.kill()
            await process.wait()
    try:
        report: dict[str, Any] = json.loads(told)
    except ValueError:
        last = complaints.decode(errors="replace").strip().rpartition("\n")[2]
        raise DoesNotAddUp(f"routstr audit said nothing but: {last}") from None
    expect("the exit status of routstr audit", process.returncode, 0 if report["ok"] else 1)
    return report


def broken(report: dict[str, Any]) -> list[str]:
    """The names of the invariants that a report finds broken."""
    return [each["name"] for each in report["invariants"] if each["breaches"]]
