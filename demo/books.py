"""The demo's own books: what every account must hold, kept beside the node and compared with it.

All amounts are msat. An account changes only by a `move`, which says by how much it must change and
what was then found; the first msat of difference is a DoesNotAddUp.
"""

from dataclasses import dataclass


class DoesNotAddUp(Exception):
    """Something is not what the demo's own arithmetic says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One account before and after a step; `fee_msat` is None where none could arise."""

    account: str
    before_msat: int
    after_msat: int
    fee_msat: int | None = None

    @property
    def change_msat(self) -> int:
        return self.after_msat - self.before_msat


class Books:
    """The accounts, what was paid for requests, and what there was at first."""

    def __init__(self) -> None:
        self.balances_msat: dict[str, int] = {}
        self.minted_msat = 0
        self.costs_msat: list[int] = []

    def __getitem__(self, account: str) -> int:
        return self.balances_msat.get(account, 0)

    def move(
        self, account: str, change_msat: int, found_msat: int, *, fee_msat: int | None = None
    ) -> Line:
        """Change an account; `found_msat` is what its keeper says it holds now."""
        before = self[account]
        expect(f"the balance of the {account}", found_msat, before + change_msat)
        self.balances_msat[account] = found_msat
        return Line(account=account, before_msat=before, after_msat=found_msat, fee_msat=fee_msat)

    def pay(self, account: str, cost_msat: int, found_msat: int) -> Line:
        """Take the cost of a request from an account."""
        line = self.move(account, -cost_msat, found_msat)
        self.costs_msat.append(cost_msat)
        return line

    def total_msat(self) -> int:
        """Everything: what the accounts hold and what the requests cost."""
        return sum(self.balances_msat.values()) + sum(self.costs_msat)


def expect(what: str, found: object, wanted: object) -> None:
    """Raises DoesNotAddUp unless both are equal."""
    if found != wanted:
        raise DoesNotAddUp(f"{what} is {found}, and must be {wanted}")
