"""`/admin/withdrawals`: what left the node or is about to, calls to mints, and Lightning invoices.

Nothing here moves money; paying yourself out is `admin_payout`.
"""

from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from routstr.flows.house.money import (
    INVOICE_STATES,
    WITHDRAWAL_STATES,
    Ask,
    invoices,
    operations,
    withdrawals,
)
from routstr.flows.house.payout_plan import OWNER_ID
from routstr.flows.payout import profit_msat
from routstr.web.admin.guard import Reading
from routstr.web.deps import Ctx
from routstr.web.pages.entries import RoomRoute
from routstr.web.pages.shell import admin_page

HERE: Final = "/admin/withdrawals"
ROWS_SHOWN: Final = 50
List = Literal["withdrawals", "invoices", "operations"]
LISTS: Final[tuple[List, ...]] = get_args(List)
LIST_WORDS: Final = {
    "withdrawals": "Withdrawals",
    "invoices": "Lightning invoices",
    "operations": "Under way with mints",
}
STATES: Final = {"withdrawals": WITHDRAWAL_STATES, "invoices": INVOICE_STATES, "operations": ()}
STATE_WORDS: Final = {
    "completed": "Given out",
    "pending": "Under way",
    "failed": "Failed",
    "claimed": "Claimed",
    "reclaimed": "Went back",
    "settlement_pending": "Paid, being fetched",
    "paid": "Paid",
    "expired": "Expired",
    "cancelled": "Cancelled",
    "reconciliation_required": "Needs a look",
}
# What was given out and nobody claimed comes first, then what is under way.
ORDER: Final = tuple(STATE_WORDS)
UNCLAIMED: Final = ORDER[0]
ALL: Final = "all"

router = APIRouter(prefix=HERE, route_class=RoomRoute, include_in_schema=False)

Text = Annotated[str, Query(max_length=100)]


@router.get("")
async def withdrawals_page(
    request: Request,
    admin: Reading,
    ctx: Ctx,
    list_: Annotated[str, Query(alias="list", max_length=20)] = "",
    status: Text = "",
    search: Text = "",
    before: Text = "",
) -> Response:
    """One of the lists, all states or one."""
    chosen: List = next((each for each in LISTS if each == list_), "withdrawals")
    states = sorted(STATES[chosen], key=ORDER.index)
    if chosen == "withdrawals" and not status and not search:
        status = UNCLAIMED
    status = status if status in states else ""
    kept = {
        "list": "" if chosen == "withdrawals" else chosen,
        "status": status or ALL,
        "search": search,
    }
    ask = Ask(status=status or None, search=search.strip(), limit=ROWS_SHOWN, before=before or None)
    rows = older = None
    if chosen != "operations":
        found = await (withdrawals(ctx, ask) if chosen == "withdrawals" else invoices(ctx, ask))
        rows, older = found.rows, found.before
    return admin_page(
        request, ctx, admin, "admin/withdrawals.html", here="withdrawals",
        chosen=chosen, rows=rows, search=search, state=status, owner=OWNER_ID,
        operations=await operations(ctx), profit_msat=await profit_msat(ctx),
        tabs=[(_here({"list": name if name in LISTS[1:] else ""}), word)
              for name, word in LIST_WORDS.items()],
        tab=_here({"list": kept["list"]}),
        states=[(_here(kept | {"status": name or ALL}), STATE_WORDS.get(name, "All"), name)
                for name in (*states, "")],
        older=None if older is None else _here(kept | {"before": older}),
        newest=_here(kept) if before else None,
        goes_back_s=ctx.limits.refund_ttl_s,
    )  # fmt: skip


def _here(query: dict[str, str]) -> str:
    asked = urlencode({name: text for name, text in query.items() if text})
    return f"{HERE}?{asked}" if asked else HERE
