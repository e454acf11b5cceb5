"""What the operator changes while the node runs: seen, changed with its history, taken back.

Laws: a change is checked by the very rules that the settings of the start are, and is in force in
this process when its caller hears of it, in every other one as soon as that hears of it, or finds
it (`flows/hear.py`). It wins over the environment until it is taken back. What is stored and would
not be allowed any more is passed over, and the rest is in force.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import structlog

from routstr.core.url import BadUrl, canonical_mint_url
from routstr.errors import ConfigError, InvalidParameter, MintUnreachable, UntrustedMint
from routstr.flows.context import Context
from routstr.flows.house.actions import note_action
from routstr.flows.house.editable import EDITABLE, Editable, unit_of
from routstr.flows.live import Changed
from routstr.flows.mints import known_mint
from routstr.flows.refresh import refresh
from routstr.ledger.engine import Database
from routstr.ledger.notices import SETTINGS
from routstr.ledger.settings import (
    ChangeSettings,
    SettingVersion,
    changes_in_force,
    every_mint,
    newest_change,
    versions_of,
)

log = structlog.get_logger()

NAMES: Final = tuple(EDITABLE)
FOLLOW_S: Final = 1.0
HISTORY_MAX: Final = 200
MINTS: Final = "cashu_mints"
REPRICED_BY: Final = frozenset({"btc_usd_price", "rate_max_age_s"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingShown:
    """A setting as the operator sees it; `value` is JSON, a secret's is masked.

    `source` is default, environment or changed; `started_with` is what taking a change back leads
    to. `bounds` is a JSON schema. `about` is None for what cannot be changed while the node runs.
    """

    name: str
    value: object = field(repr=False)
    started_with: object = field(repr=False)
    source: str
    about: Editable | None
    bounds: Mapping[str, object]
    changed_by: str | None
    changed_at: datetime | None

    @property
    def is_editable(self) -> bool:
        """Whether it can be changed while the node runs."""
        return self.about is not None

    @property
    def unit(self) -> str:
        """What its value counts: `s`, `sat` …; empty for what counts nothing."""
        return unit_of(self.name)


def needs_code(names: Sequence[str]) -> bool:
    """Whether one of those settings is changed only with a fresh code (SR-4)."""
    return any(EDITABLE[name].needs_code for name in names if name in EDITABLE)


async def settings_shown(ctx: Context) -> tuple[SettingShown, ...]:
    """Every setting: those that can be changed first, in the order of their groups."""
    async with ctx.database.reading() as connection:
        changes = await changes_in_force(connection, NAMES)
    rules = ctx.live.rules
    rest = [name for name in rules.told if name not in EDITABLE]
    return tuple(
        _shown(ctx, name, changes.get(name))
        for name in (*(each for each in NAMES if each in rules.told), *rest)
    )


def _shown(ctx: Context, name: str, change: SettingVersion | None) -> SettingShown:
    rules = ctx.live.rules
    started_with = rules.told[name]
    is_changed = change is not None and change.has_value
    source = "environment" if name in rules.given else "default"
    return SettingShown(
        name=name,
        value=change.value if change is not None and is_changed else started_with,
        started_with=started_with,
        source="changed" if is_changed else source,
        about=EDITABLE.get(name),
        bounds=rules.bounds.get(name, {}),
        changed_by=None if change is None else change.changed_by,
        changed_at=None if change is None else change.changed_at,
    )


async def setting_history(
    ctx: Context, name: str, *, limit: int = 50, before: int | None = None
) -> list[SettingVersion]:
    """How a setting was changed, the newest first. Raises InvalidParameter for an unknown name."""
    _known([name])
    async with ctx.database.reading() as connection:
        return await versions_of(connection, name, limit=min(limit, HISTORY_MAX), before=before)


async def change_settings(
    ctx: Context,
    values: Mapping[str, object],
    *,
    resets: Sequence[str] = (),
    changed_by: str,
    request_id: str | None = None,
) -> tuple[str, ...]:
    """Change some and take changes of others back, all of them or none; the names that differ now.

    A value is text as the environment has it, or JSON. A new mint must answer. Raises
    InvalidParameter naming the setting, MintUnreachable and UntrustedMint of a new mint.
    """
    _known([*values, *resets])
    both = set(values) & set(resets)
    if both:
        raise InvalidParameter("Change it or take it back, not both.", param=min(both))
    changed = _checked(ctx, values)
    await _check_mints(ctx, changed)
    names = await ctx.ledger.submit(
        ChangeSettings(values=changed.values, resets=tuple(resets), changed_by=changed_by)
    )
    ctx.failpoint("settings.changed")
    await read_settings(ctx)
    if names:
        ctx.tell(SETTINGS, ctx.live.now.version)
    for name in names:
        log.info("setting_changed", setting=name)
        await note_action(
            ctx,
            actor=changed_by,
            action="setting.change" if name in values else "setting.reset",
            target=name,
            detail={"value": changed.values[name]} if name in values else None,
            request_id=request_id,
        )
    if REPRICED_BY.intersection(names):
        await _reprice(ctx)
    return names


def _known(names: Sequence[str]) -> None:
    for name in names:
        if name not in EDITABLE:
            raise InvalidParameter("That cannot be changed while the node runs.", param=name)


def _checked(ctx: Context, values: Mapping[str, object]) -> Changed:
    """One after the other, so that the error names the right one. Raises InvalidParameter."""
    for name, value in values.items():
        try:
            ctx.live.rules.change({name: value})
        except ConfigError as error:
            why = str(error).partition(": ")[2] or str(error)
            raise InvalidParameter(f"{why[:1].upper()}{why[1:]}.", param=name) from error
    return ctx.live.rules.change(values)


async def _check_mints(ctx: Context, changed: Changed) -> None:
    """A mint that is new must answer, and keep to the protocol, before its ecash is taken.

    Raises MintUnreachable, UntrustedMint.
    """
    if MINTS not in changed.values:
        return
    new = [url for url in changed.in_force.facts.mints if url not in ctx.facts.mints]
    ctx.mints.allow(dict.fromkeys([*ctx.payable_mints, *new]))
    try:
        for url in new:
            await known_mint(ctx, url, since_s=ctx.monotonic_s())
    except (MintUnreachable, UntrustedMint) as error:
        ctx.mints.allow(ctx.payable_mints)
        error.details["mint_url"] = url
        raise


async def read_settings(ctx: Context) -> None:
    """Put in force, in this process, what is stored."""
    async with ctx.database.reading() as connection:
        version = await newest_change(connection, NAMES)
        changes = await changes_in_force(connection, NAMES)
        seen = await every_mint(connection)
    values = {name: each.value for name, each in changes.items() if each.has_value}
    if version < ctx.live.now.version:
        return  # somebody in this process has read later changes meanwhile
    in_force = _allowed(ctx, values).in_force
    loops = in_force.facts.allow_loopback_http
    former = [
        url for url in seen if url not in in_force.facts.mints and _is_usable(url, loops=loops)
    ]
    ctx.mints.allow((*in_force.facts.mints, *former))
    ctx.early_leaves.allow(
        in_force.limits.early_leaves_max, window_s=in_force.limits.early_leaves_window_s
    )
    ctx.live.replace(replace(in_force, version=version, former_mints=tuple(former)))


async def listed_mints(database: Database) -> tuple[str, ...]:
    """The mints that the operator has listed while a node ran; none if he did not."""
    async with database.reading() as connection:
        change = (await changes_in_force(connection, [MINTS])).get(MINTS)
    value = None if change is None else change.value
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _allowed(ctx: Context, values: Mapping[str, object]) -> Changed:
    """What of it follows from the rules of now, which may be stricter than those it was made by."""
    allowed: dict[str, object] = {}
    for name, value in values.items():
        try:
            ctx.live.rules.change({name: value})
        except ConfigError as error:
            log.error("setting_passed_over", setting=name, reason=str(error))
        else:
            allowed[name] = value
    return ctx.live.rules.change(allowed)


def _is_usable(url: str, *, loops: bool) -> bool:
    try:
        return canonical_mint_url(url, allow_loopback_http=loops) == url
    except BadUrl:
        return False


async def follow(ctx: Context) -> bool:
    """Put in force what another process has changed meanwhile; whether there was anything."""
    async with ctx.database.reading() as connection:
        newest = await newest_change(connection, NAMES)
    if newest == ctx.live.now.version:
        return False
    before = ctx.limits
    await read_settings(ctx)
    if any(getattr(before, name) != getattr(ctx.limits, name) for name in REPRICED_BY):
        await _reprice(ctx)
    return True


async def _reprice(ctx: Context) -> None:
    """Make the prices anew of the rate in force."""
    ctx.catalog.stamp = None
    await refresh(ctx)
