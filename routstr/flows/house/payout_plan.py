"""What a payout would come to, before anybody decides: to whom, how much, its fee, what is left.

Nothing here moves money. A Lightning payout is quoted by the mint that would make it; a token's fee
is that of the change it needs, from the coins at hand. What is planned may be refused later on: the
coins may be gone, the invoice expired.
"""

from dataclasses import dataclass, field
from typing import Final

from routstr.core.money import msat_from_unit, unit_from_msat
from routstr.ecash.keyset import fee
from routstr.ecash.selection import choose_cover, choose_exact
from routstr.ecash.token import PROOFS_MAX
from routstr.errors import (
    InvalidInvoice,
    InvalidLightningAddress,
    InvalidParameter,
    MintShort,
    ProfitTooSmall,
)
from routstr.flows.context import Context
from routstr.flows.mints import payable_mint, remembered_mint
from routstr.flows.offers import Bill, Offer, PayWish, make_offer, with_bill
from routstr.flows.payout import profit_msat
from routstr.flows.sources import Source, first_that_can, sources_of
from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.purse import purse_at
from routstr.ledger.reads import RATES, KeyView

TOKEN: Final = "token"  # noqa: S105 - a way to be paid, not a secret
LIGHTNING: Final = "lightning"
OWNER_ID: Final = OWNER_KEY_ID  # whose withdrawals are payouts
UNIT: Final = "sat"


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutPlan:
    """A payout as it would be; amounts in msat. `fee_msat` is the most that it costs.

    `to` is the address or invoice, empty for a token. `is_partial`: all was asked for, and more is
    there than this mint's coins or that address can take.
    """

    way: str
    to: str = field(repr=False)
    mint_url: str
    amount_msat: int
    fee_msat: int
    before_msat: int
    is_partial: bool = False

    @property
    def amount_sat(self) -> int:
        """The same amount in whole sats."""
        return unit_from_msat(self.amount_msat, UNIT)

    @property
    def after_msat(self) -> int:
        """What stays to be paid out, if it costs all of its fee."""
        return self.before_msat - self.amount_msat - self.fee_msat


async def plan_token(ctx: Context, mint_url: str, amount_sat: int | None) -> PayoutPlan:
    """A token of that mint, or the largest one it can make. Raises ProfitTooSmall, MintShort."""
    url, before_msat = payable_mint(ctx, mint_url), await profit_msat(ctx)
    mint = await remembered_mint(ctx, url)
    if mint is None:
        raise MintShort
    async with ctx.database.reading() as connection:
        purse, fee_ppk = await purse_at(connection, mint.id, UNIT)
    yours = unit_from_msat(before_msat, UNIT)
    held = sum(coin * count for coin, count in purse.items())
    amount = min(yours, held) if amount_sat is None else amount_sat
    if amount > yours:
        raise _too_small(before_msat)
    while amount > 0:
        cost = _change_fee(purse, amount, fee_ppk)
        if cost is not None and amount + cost <= yours:
            break
        if amount_sat is not None:
            raise MintShort if cost is None else _too_small(before_msat)
        amount -= 1 if cost is None else amount + cost - yours
    if amount < 1:
        raise _too_small(before_msat)
    return PayoutPlan(
        way=TOKEN,
        to="",
        mint_url=url,
        amount_msat=msat_from_unit(amount, UNIT),
        fee_msat=msat_from_unit(_change_fee(purse, amount, fee_ppk) or 0, UNIT),
        before_msat=before_msat,
        is_partial=amount_sat is None and held < yours,
    )


async def plan_payment(ctx: Context, to: str, amount_sat: int | None) -> PayoutPlan:
    """A payment to an invoice or an address, asked of the mint that would make it.

    Raises what `flows.pay.quote_payment` raises, and ProfitTooSmall.
    """
    before_msat = await profit_msat(ctx)
    if not before_msat:
        raise _too_small(before_msat)
    to = to.strip()
    if "@" not in to:
        wish = PayWish(invoice=to, amount_sat=amount_sat)
        return await _quoted(ctx, wish, to, before_msat)
    address = to.lower()
    wish = PayWish(lightning_address=address, amount_sat=amount_sat)
    try:
        plan = await _quoted(ctx, wish, address, before_msat)
    except InvalidLightningAddress as error:
        most_msat = error.details.get("max_msat")
        if not wish.empties or not isinstance(most_msat, int) or most_msat >= before_msat:
            raise
        most = PayWish(lightning_address=address, amount_sat=unit_from_msat(most_msat, UNIT))
        plan = await _quoted(ctx, most, address, before_msat, is_partial=True)
    return plan


async def _quoted(
    ctx: Context, wish: PayWish, to: str, before_msat: int, *, is_partial: bool = False
) -> PayoutPlan:
    key = _as_if_taken(ctx, before_msat)
    sources = await sources_of(ctx, OWNER_KEY_ID, None)

    async def use(bill: Bill) -> tuple[Bill, Offer]:
        async def ask(source: Source) -> Offer:
            return await make_offer(ctx, key, bill, source)

        return bill, await first_that_can(sources, ask, InvalidInvoice)

    bill, offer = await with_bill(ctx, key, wish, use)
    return PayoutPlan(
        way=LIGHTNING,
        to=to,
        mint_url=offer.mint.url,
        amount_msat=bill.amount_msat,
        fee_msat=offer.total_msat - bill.amount_msat,
        before_msat=before_msat,
        is_partial=is_partial,
    )


def _as_if_taken(ctx: Context, profit: int) -> KeyView:
    """The operator's account as it is once all profit is on it; nothing is held there."""
    return KeyView(
        id=OWNER_KEY_ID,
        balance_msat=profit,
        reserved_msat=0,
        total_spent_msat=0,
        total_requests=0,
        created_at=ctx.clock.now(),
        first_used_at=None,
        expires_at=None,
        revoked_at=None,
        parent_id=None,
        balance_limit_msat=None,
        limit_reset=None,
        preview=None,
        allowed_models=None,
        limit_base_msat=0,
        limit_since=None,
        limit_held_msat=0,
        rates=dict.fromkeys(RATES),
    )


def _change_fee(purse: dict[int, int], amount: int, fee_ppk: int) -> int | None:
    """What the mint takes for making that amount of these coins; None if they cannot."""
    if choose_exact(purse, amount, proofs_max=PROOFS_MAX) is not None:
        return 0
    cover = choose_cover(purse, amount, fee_ppk=fee_ppk)
    return None if cover is None else fee([fee_ppk] * sum(cover.values()))


def _too_small(profit: int) -> ProfitTooSmall:
    return ProfitTooSmall(details={"profit_msat": profit})


def check_amount(amount_sat: int | None) -> None:
    """Raises InvalidParameter for an amount of nothing."""
    if amount_sat is not None and amount_sat < 1:
        raise InvalidParameter("A payout is of at least 1 sat.", param="amount")
