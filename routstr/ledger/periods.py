"""Limits whose day, week or month is over, written as they count anyway."""

from collections.abc import Sequence
from dataclasses import dataclass

from routstr.ledger.book import Book, KeyRef
from routstr.ledger.commands import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginPeriods(Command[int]):
    """Store of each key's limit what any request would find: where its period began.

    Nothing changes for anybody. Yields how many of the keys are in their period then, so a repeat
    tells the same.
    """

    key_ids: Sequence[str]

    @property
    def keys(self) -> Sequence[KeyRef]:
        """Each of them."""
        return tuple(KeyRef(id=key_id) for key_id in self.key_ids)

    def apply(self, book: Book) -> int:
        """Move base and beginning where a period is over."""
        current = 0
        for ref in self.keys:
            account = book.find(ref)
            cap = None if account is None else account.cap
            if account is None or cap is None or cap.reset is None:
                continue
            now = cap.at(book.now)
            if now is not cap:
                book.put_account(
                    account._replace(limit_base_msat=now.base_msat, limit_since=now.since)
                )
            current += 1
        return current
