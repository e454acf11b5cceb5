"""Keys with money on them, through the ledger's executor, for a node that is not running.

`python -m bench.throughput.funding N FILE`, under the node's own settings. One token is credited
whole: its deposit, the call to its mint, the coin that came of it. It goes to a first key, which
transfers to N others what they need; their texts go to FILE. So the books are whole, as `routstr
audit --full` can see. What is not real is the mint.
"""

import asyncio
import secrets
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert, select

from routstr.assembly import Ids, open_ledger
from routstr.config import load_settings
from routstr.ecash import bdhke
from routstr.ecash.keyset import keyset_id, residue31
from routstr.ledger.accounts import NewKey, OpenKey, Transfer
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.deposits import INPUT, OPERATION
from routstr.ledger.executor import LedgerExecutor
from routstr.ledger.reads import DEPOSIT
from routstr.ledger.sagas import KEYSET, MINT, OUTPUT, PROOF
from routstr.log import configure

MSAT: Final = 1_000
COIN_SAT: Final = 2**36
POINT: Final = bdhke.public_key(f"{7919:064x}")
SHARE_MSAT: Final = 10**9  # a million sat: for ten million of these requests
AT_ONCE: Final = 200  # commands under way


@dataclass(frozen=True, slots=True, kw_only=True)
class BringToken(RowCommand[None]):
    """A token of one coin, credited to a key: every row that a real one leaves behind."""

    key_id: str
    mint_url: str
    now: datetime

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key it is credited to."""
        return (KeyRef(id=self.key_id),)

    async def run(self, transaction: Transaction) -> None:
        """Write the mint, the call to it, the coin and the credit."""
        keyset = await self._mint(transaction)
        deposit_id = await self._deposit(transaction)
        await self._coin(transaction, keyset, deposit_id)
        book = transaction.book
        account = book.account(KeyRef(id=self.key_id))
        account = account._replace(total_deposited_msat=COIN_SAT * MSAT)
        book.post(account, COIN_SAT * MSAT, "deposit", f"deposit:{deposit_id}")

    async def _mint(self, transaction: Transaction) -> str:
        """A mint with a keyset whose key somebody could have; the keyset's id."""
        run = transaction.connection.execute
        mint_id, times = transaction.wallet.new_id("mint"), {"updated_at": self.now}
        public = {COIN_SAT: POINT}
        id_ = keyset_id(public, unit="sat", input_fee_ppk=0, final_expiry=None, version="00")
        await run(
            insert(MINT).values(
                id=mint_id, url=self.mint_url, nuts=[4, 5, 7], created_at=self.now, **times
            )
        )
        await run(
            insert(KEYSET).values(
                id=id_, mint_id=mint_id, unit="sat", active=True, input_fee_ppk=0,
                keys={str(COIN_SAT): POINT}, next_counter=1, residue31=residue31(id_), **times,
            )
        )  # fmt: skip
        return id_

    async def _deposit(self, transaction: Transaction) -> str:
        run, id_ = transaction.connection.execute, transaction.wallet.new_id("dep")
        await run(
            insert(DEPOSIT).values(
                id=id_, api_key_id=self.key_id, state="credited", source="cashu",
                mint_url=self.mint_url, unit="sat", face_amount=COIN_SAT,
                credit_msat=COIN_SAT * MSAT, created_at=self.now, credited_at=self.now,
                is_locked=False,
            )
        )  # fmt: skip
        await run(insert(INPUT).values(y=f"02{secrets.token_hex(32)}", deposit_id=id_))
        return id_

    async def _coin(self, transaction: Transaction, keyset: str, deposit_id: str) -> None:
        run, vault = transaction.connection.execute, transaction.wallet.vault
        id_, y = transaction.wallet.new_id("op"), f"03{secrets.token_hex(32)}"
        request = vault.seal("{}", table="mint_operation", column="request", row_id=id_)
        secret = vault.seal(secrets.token_hex(32), table="proof", column="secret", row_id=y)
        mint_id = await transaction.connection.scalar(
            select(KEYSET.c.mint_id).where(KEYSET.c.id == keyset)
        )
        await run(
            insert(OPERATION).values(
                id=id_, kind="receive", state="done", mint_id=mint_id, unit="sat", request=request,
                input_amount=COIN_SAT, fee_amount=0, deposit_id=deposit_id, attempts=1,
                next_attempt_at=self.now, created_at=self.now, ended_at=self.now,
            )
        )  # fmt: skip
        coin = {"operation_id": id_, "keyset_id": keyset, "counter": 0, "amount": COIN_SAT}
        b_ = f"02{secrets.token_hex(32)}"
        await run(insert(OUTPUT).values(position=0, b_=b_, purpose="keep", **coin))
        await run(insert(PROOF).values(y=y, secret=secret, c=POINT, state="unspent", **coin))


async def fund(count: int) -> list[str]:
    """The texts of new keys with a share each, in the database that the settings name."""
    settings, ids = load_settings(), Ids()
    async with AsyncExitStack() as stack:
        _, ledger, wallet = await open_ledger(settings, ids, stack)
        running = asyncio.create_task(ledger.run())
        texts = [f"sk-{secrets.token_hex(32)}" for _ in range(count + 1)]
        keys = [NewKey(id=ids.new("key"), hash=wallet.vault.key_hash(text)) for text in texts]
        await _together(ledger, [OpenKey(key=key) for key in keys])
        first, *others = keys
        mint_url, now = settings.cashu_mints[0], datetime.now(UTC)
        await ledger.submit(BringToken(key_id=first.id, mint_url=mint_url, now=now))
        payer = KeyRef(id=first.id)
        await _together(
            ledger,
            [
                Transfer(
                    transfer_id=ids.new("transfer"),
                    payer=payer,
                    payee=KeyRef(id=each.id),
                    amount_msat=SHARE_MSAT,
                )
                for each in others
            ],
        )
        ledger.stop()
        await running
    return texts[1:]


async def _together(ledger: LedgerExecutor, commands: Sequence[RowCommand[Any]]) -> None:
    for begin in range(0, len(commands), AT_ONCE):
        await asyncio.gather(*(ledger.submit(each) for each in commands[begin : begin + AT_ONCE]))


def main() -> None:
    """Fund N keys and write their texts to FILE."""
    configure("ERROR", json=False)
    count, path = int(sys.argv[1]), Path(sys.argv[2])
    texts = asyncio.run(fund(count))
    path.touch(mode=0o600)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
