"""The operator's first page: the money as an equation, how the node sells, and what needs somebody.

`overview` reads a few sums of one moment, and the sums of what was sold (`usage.py`); nothing here
grows with the number of requests ever made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from routstr.core.breaker import State
from routstr.core.money import msat_from_unit
from routstr.ecash.keyset import RETIRING_S
from routstr.flows.context import Context
from routstr.flows.house.backup import BackupSeen, backups
from routstr.flows.house.usage import Usage, usage
from routstr.flows.operate import AUDIT_JOB
from routstr.flows.payout import payable_msat
from routstr.gateways.pool import UpstreamHealth
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import JobView
from routstr.ledger.reads_house import (
    KeysetEnd,
    MintSeen,
    PurseRow,
    keysets_ending,
    last_jobs,
    mints_seen,
    pending,
    purse,
    unclaimed,
    unreconciled,
)
from routstr.ledger.reads_wallet import Coins, coins

UNCLAIMED_AFTER: Final = timedelta(days=7)
PENDING_AFTER: Final = timedelta(hours=1)
BACKUP_AFTER: Final = timedelta(hours=48)
SILENT_PERIODS: Final = 3

Urgency = Literal["now", "soon"]

FAILURES: Final[Mapping[str, str]] = {
    "not_sent": "could not be reached",
    "lost": "broke off before an answer",
    "garbled": "did not answer in HTTP",
    "slow": "took too long to answer",
    "cut": "broke off in an answer",
    "stalled": "fell silent in an answer",
    "too_large": "gave too large an answer",
}


def why_failed(code: str) -> str:
    """What an upstream did, for the code of its last failure: it …"""
    if code.startswith("status_"):
        return f"answered {code.removeprefix('status_')}"
    return FAILURES.get(code, f"failed: {code.replace('_', ' ')}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """The node's money in msat: wallet = users + in flight + yours, at one moment.

    `wallet_msat` is the ecash that is the node's to spend: free, in operations under way, or locked
    to it. `in_flight_msat` is what pending withdrawals cost, and the fees of own swaps under way.
    Of `yours_msat` (which may be below 0 by what a mint went back on), `takeable_msat` can be paid
    out now, `taken_msat` of it begun before; PAYOUT_KEEP_SATS stays. `held_msat` is the part of the
    users' that running requests hold; `issued_msat` was given out as tokens nobody claimed: no part
    of it.
    """

    wallet_msat: int
    users_msat: int
    in_flight_msat: int
    yours_msat: int
    takeable_msat: int
    taken_msat: int
    locked_msat: int
    issued_msat: int
    held_msat: int
    held_msat_max: int
    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something that waits for the operator, and the page (a path) where it is seen to.

    `kind` is for programs; `text` is a whole sentence. What is urgent `now` has stopped something.
    """

    kind: str
    text: str
    link: str
    urgency: Urgency


@dataclass(frozen=True, slots=True, kw_only=True)
class MintHealth:
    """A mint that is accepted, or was; `held_msat` is there. `is_silent`: it did not answer lately.

    `answered_at` None: it never did.
    """

    url: str
    name: str | None
    is_allowed: bool
    is_silent: bool
    answered_at: datetime | None
    open_operations: int
    held_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What there is to see at a glance; `usage` has the series of the charts."""

    now: datetime
    money: Money
    usage: Usage
    needs: tuple[Need, ...]
    upstreams: tuple[UpstreamHealth, ...]
    mints: tuple[MintHealth, ...]


async def overview(ctx: Context, *, hours: int) -> Overview:
    """All of it, with charts of the last `hours`. Raises InvalidParameter for hours out of bounds.

    `usage` raises it before anything is read.
    """
    now = ctx.clock.now()
    sold = await usage(ctx, hours=hours)
    async with ctx.database.reading() as connection:
        money = money_of(ctx, await purse(connection))
        mints = mint_health(ctx, await mints_seen(connection), await coins(connection), now)
        needs = await _needs(ctx, connection, mints, now)
    return Overview(
        now=now,
        money=money,
        usage=sold,
        needs=needs,
        upstreams=ctx.upstream.health(),
        mints=mints,
    )


def money_of(ctx: Context, row: PurseRow) -> Money:
    """The equation: what is nobody else's is yours."""
    wallet_msat = row.unspent_msat + row.reserved_msat + row.locked_msat
    in_flight_msat = row.pending_msat + row.swap_fees_msat
    return Money(
        wallet_msat=wallet_msat,
        users_msat=row.users_msat,
        in_flight_msat=in_flight_msat,
        yours_msat=wallet_msat - row.users_msat - in_flight_msat,
        takeable_msat=payable_msat(ctx, surplus_msat=row.surplus_msat, taken_msat=row.taken_msat),
        taken_msat=row.taken_msat,
        locked_msat=row.locked_msat,
        issued_msat=row.issued_msat,
        held_msat=row.held_msat,
        held_msat_max=ctx.ledger.held_msat_max,
        running=row.running,
    )


def mint_health(
    ctx: Context, seen: Sequence[MintSeen], held: Sequence[Coins], now: datetime
) -> tuple[MintHealth, ...]:
    """How each mint is that is accepted, was ever reached, or has something of the node's."""
    amounts: dict[str, int] = {}
    for coin in held:
        amount = coin.unspent + coin.reserved + coin.locked
        amounts[coin.mint_url] = amounts.get(coin.mint_url, 0) + msat_from_unit(amount, coin.unit)
    known = {mint.url: mint for mint in seen}
    silent_before = now - timedelta(seconds=SILENT_PERIODS * ctx.limits.keyset_refresh_s)
    found = []
    for url in (*ctx.facts.mints, *(url for url in known if url not in ctx.facts.mints)):
        mint = known.get(url)
        answered_at = None if mint is None else mint.answered_at
        found.append(
            MintHealth(
                url=url,
                name=None if mint is None else mint.name,
                is_allowed=url in ctx.facts.mints,
                is_silent=answered_at is None or answered_at < silent_before,
                answered_at=answered_at,
                open_operations=0 if mint is None else mint.open_operations,
                held_msat=amounts.get(url, 0),
            )
        )
    return tuple(found)


# ── what needs the operator ───────────────────────────────────────────────────────────────────


async def needs_of(ctx: Context) -> tuple[Need, ...]:
    """What needs the operator, most urgent first: for every page's banner."""
    now = ctx.clock.now()
    async with ctx.database.reading() as connection:
        mints = mint_health(ctx, await mints_seen(connection), await coins(connection), now)
        return await _needs(ctx, connection, mints, now)


async def _needs(
    ctx: Context, connection: ReadConnection, mints: Sequence[MintHealth], now: datetime
) -> tuple[Need, ...]:
    jobs = await last_jobs(connection)
    ending = await keysets_ending(connection, before_s=int(now.timestamp()) + RETIRING_S)
    found = [
        *_of_audit(jobs.get(AUDIT_JOB)),
        *_of_switches(ctx),
        *_of_selling(ctx),
        *(need for mint in mints for need in _of_mint(mint)),
        *_of_jobs(jobs),
        *_of_backups(await backups(ctx), now),
        *(_of_keyset(keyset, now) for keyset in ending),
        *await _of_withdrawals(connection, now),
    ]
    return tuple(sorted(found, key=lambda need: need.urgency == "soon"))


def _of_audit(audit: JobView | None) -> list[Need]:
    if audit is None or audit.ok is not False:
        return []
    breaches = (audit.result or {}).get("breaches")
    names = ", ".join(sorted(breaches)) if isinstance(breaches, dict) else ""
    return [
        Need(
            kind="invariant_broken",
            text=f"The books are broken: {names}. Withdrawals are paused."
            if names
            else "The last audit did not end.",
            link="/admin/audit",
            urgency="now",
        )
    ]


def _of_switches(ctx: Context) -> list[Need]:
    switches = ctx.switches
    states = {
        "Deposits": switches.deposits,
        "Requests": switches.spending,
        "Withdrawals": switches.withdrawals,
    }
    return [
        Need(
            kind="switch_off",
            text=f"{name} are switched off.",
            link="/admin/settings",
            urgency="now",
        )
        for name, is_on in states.items()
        if not is_on
    ]


def _of_selling(ctx: Context) -> list[Need]:
    found = []
    if ctx.catalog.has_old_prices:
        found.append(
            Need(
                kind="rate_old",
                text="The exchange rate is too old: what is priced in USD is not sold.",
                link="/admin/models",
                urgency="now",
            )
        )
    for upstream in ctx.upstream.health():
        if upstream.state is State.OPEN:
            code = upstream.last_failure
            reason = f": it {why_failed(code)}" if code else ""
            found.append(
                Need(
                    kind="upstream_paused",
                    text=f"The upstream {upstream.slug} is left alone for now{reason}.",
                    link="/admin/models",
                    urgency="now",
                )
            )
    return found


def _of_mint(mint: MintHealth) -> list[Need]:
    if not mint.is_silent or not (mint.is_allowed or mint.held_msat):
        return []
    is_new = mint.answered_at is None
    said = "has never answered yet" if is_new else "does not answer"
    return [
        Need(
            kind="mint_silent",
            text=f"The mint {mint.url} {said}.",
            link="/admin/mints",
            urgency="soon" if is_new else "now",
        )
    ]


def _of_jobs(jobs: Mapping[str, JobView]) -> list[Need]:
    return [
        Need(
            kind="job_failed",
            text=f"The job {job.name} failed the last time.",
            link="/admin/jobs",
            urgency="soon",
        )
        for job in jobs.values()
        if job.ok is False and job.name != AUDIT_JOB
    ]


def _of_backups(made: Sequence[BackupSeen], now: datetime) -> list[Need]:
    if made and made[0].created_at >= now - BACKUP_AFTER:
        return []
    said = "The last backup is more than two days old." if made else "There is no backup yet."
    return [Need(kind="backup_old", text=said, link="/admin/backups", urgency="soon")]


def _of_keyset(keyset: KeysetEnd, now: datetime) -> Need:
    days = max(0, (keyset.final_expiry - int(now.timestamp())) // 86_400)
    return Need(
        kind="keyset_ends",
        text=f"The keyset {keyset.id} of {keyset.mint_url} ends in {days} d;"
        f" {keyset.held} {keyset.unit} of it are still here.",
        link="/admin/mints",
        urgency="soon",
    )


async def _of_withdrawals(connection: ReadConnection, now: datetime) -> list[Need]:
    found = []
    out = await unclaimed(connection, before=now - UNCLAIMED_AFTER)
    if out.count:
        found.append(
            Need(
                kind="unclaimed",
                text=f"Unclaimed for more than a week: {_counted(out.count, 'withdrawal')}.",
                link="/admin/withdrawals?status=completed",
                urgency="soon",
            )
        )
    stuck = await pending(connection, before=now - PENDING_AFTER)
    if stuck.count:
        found.append(
            Need(
                kind="withdrawal_pending",
                text=f"Waiting for a mint for an hour: {_counted(stuck.count, 'withdrawal')}.",
                link="/admin/withdrawals?status=pending",
                urgency="now",
            )
        )
    odd = await unreconciled(connection)
    if odd.count:
        found.append(
            Need(
                kind="invoice_unclear",
                text=f"Their mint says what does not fit: {_counted(odd.count, 'invoice')}.",
                link="/admin/withdrawals?list=invoices",
                urgency="now",
            )
        )
    return found


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
