"""Finding the node's coins again with the seed and the mints alone (NUT-09, NUT-13; ecash, 4 E).

Each keyset, active or not, is scanned from a counter on, a hundred at a time, until three batches
in a row were never signed, as NUT-13 has it. Each token that a mint refused left unsigned outputs,
and anybody can bring those, so a longer gap can be asked for. That finds coins, not what users own:
it belongs to nobody's balance.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

import structlog

from routstr.ecash.bdhke import y_of
from routstr.ecash.errors import BadSignature
from routstr.ecash.outputs import BLANK, Output, make_outputs, unblind_all
from routstr.ecash.proof import BlindSignature, Keyset, Proof
from routstr.errors import UntrustedMint
from routstr.flows.context import Context
from routstr.flows.mints import known_mint, unreachable
from routstr.gateways.mint_failure import MintLimited, MintMisbehaved, MintRefused, MintUnknown
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.restores import StoreRestored

log = structlog.get_logger()

BATCH: Final = 100
EMPTY_BATCHES: Final = 3
STATES_BATCH: Final = 200
ATTEMPTS_MAX: Final = 6
WAIT_FIRST_S: Final = 1.0

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A coin that the mint has signed, by the counter of its output."""

    output: Output = field(repr=False)
    proof: Proof = field(repr=False)
    y: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What there was of one keyset, in its unit: coins kept, spent, and in somebody's payment."""

    mint_url: str
    unit: str
    keyset_id: str
    amount: int
    coins: int
    spent: int
    pending_amount: int
    next_counter: int


async def restore_mint(
    ctx: Context, mint_url: str, *, empty_batches: int = EMPTY_BATCHES
) -> tuple[Restored, ...]:
    """Scan every sat and msat keyset of a mint from 0 on, and keep what is unspent.

    A repeat with more `empty_batches` finds what lies behind a longer row of unsigned outputs.
    Raises RestoreRefused, MintUnreachable, and UntrustedMint for answers that break the protocol.
    What was stored before that stays, and a repeat goes on.
    """
    mint = await known_mint(ctx, mint_url, since_s=ctx.monotonic_s())
    restored: list[Restored] = []
    for keyset in mint.keysets:
        found = await scan(ctx, mint_url, keyset, first_counter=0, empty_batches=empty_batches)
        ctx.failpoint("restore.scanned")
        restored.append(await _store(ctx, mint.id, mint_url, keyset, found))
        ctx.failpoint("restore.stored")
    return tuple(restored)


async def scan(
    ctx: Context,
    mint_url: str,
    keyset: Keyset,
    *,
    first_counter: int,
    empty_batches: int = EMPTY_BATCHES,
) -> tuple[Found, ...]:
    """Every coin of the keyset that the mint signed for this seed, spent ones too.

    Raises MintUnreachable, UntrustedMint.
    """
    found: list[Found] = []
    counter, empty = first_counter, 0
    while empty < empty_batches:
        outputs = make_outputs(ctx.wallet.seed, keyset.id, counter, [BLANK] * BATCH)
        signatures = await _signatures(ctx, mint_url, outputs)
        signed = [output for output in outputs if output.b_ in signatures]
        try:
            found += [_found(output, signatures[output.b_], keyset) for output in signed]
        except BadSignature as error:
            log.error("mint_signed_wrongly", mint_url=mint_url, keyset_id=keyset.id)
            raise UntrustedMint("The mint's restored signatures do not hold.") from error
        empty = 0 if signed else empty + 1
        counter += BATCH
    return tuple(found)


async def states_of(
    ctx: Context, mint_url: str, found: Sequence[Found]
) -> Mapping[str, ProofState]:
    """What the mint says of each coin, by Y (NUT-07). Raises MintUnreachable, UntrustedMint."""
    states: dict[str, ProofState] = {}
    for first in range(0, len(found), STATES_BATCH):
        ys = [each.y for each in found[first : first + STATES_BATCH]]
        states |= await patiently(ctx, partial(ctx.mints.check_state, mint_url, ys))
    return states


async def _signatures(
    ctx: Context, mint_url: str, outputs: Sequence[Output]
) -> Mapping[str, BlindSignature]:
    messages = [output.message() for output in outputs]
    return await patiently(
        ctx, partial(ctx.mints.restore, mint_url, messages, priority=Priority.RECOVERY)
    )


def _found(blank: Output, signature: BlindSignature, keyset: Keyset) -> Found:
    output = replace(blank, amount=signature.amount)
    (proof,) = unblind_all([output], [signature], keyset, require_dleq=True)
    return Found(output=output, proof=proof, y=y_of(proof.secret))


async def _store(
    ctx: Context, mint_id: str, mint_url: str, keyset: Keyset, found: Sequence[Found]
) -> Restored:
    states = await states_of(ctx, mint_url, found)
    kept = [each for each in found if states[each.y] is ProofState.UNSPENT]
    pending = [each for each in found if states[each.y] is ProofState.PENDING]
    next_counter = max((each.output.counter + 1 for each in found), default=0)
    amount = await ctx.ledger.submit(
        StoreRestored(
            mint_id=mint_id,
            mint_url=mint_url,
            unit=keyset.unit,
            keyset_id=keyset.id,
            outputs=[each.output for each in kept],
            proofs=[each.proof for each in kept],
            ys=[each.y for each in kept],
            next_counter=next_counter,
            owner=ctx.owner,
        )
    )
    return Restored(
        mint_url=mint_url,
        unit=keyset.unit,
        keyset_id=keyset.id,
        amount=amount,
        coins=len(kept),
        spent=len(found) - len(kept) - len(pending),
        pending_amount=sum(each.proof.amount for each in pending),
        next_counter=next_counter,
    )


async def patiently(ctx: Context, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """The answer, however often the mint has to be asked: a scan is long, and limits are low.

    Nothing here changes anything at the mint. Raises MintUnreachable, UntrustedMint.
    """
    wait_s = WAIT_FIRST_S
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            return await call()
        except MintMisbehaved as error:
            raise UntrustedMint("The mint's answers break the protocol.") from error
        except (MintUnknown, MintRefused) as error:
            if attempt == ATTEMPTS_MAX:
                raise unreachable(error) from error
            limited_s = error.retry_after_s if isinstance(error, MintLimited) else None
            await ctx.clock.sleep(max(wait_s, limited_s or 0))
            wait_s *= 2
    raise AssertionError("the last attempt returns or raises")
