"""One swap at a mint, from the committed intent to a definite answer, or to a known unknown.

Algorithm A, steps 3 to 5. What is true if the process dies: before `sent` is committed nothing was
posted; after it the mint may have signed, so nothing is concluded from silence. The next owner of
the operation restores (NUT-09), asks for the states of inputs and outputs (NUT-07), and only then
credits what was signed, or posts the same bytes again; another body is never posted for the same
operation.

Whatever else has all its outputs signed goes the same way, with a `Call` of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

import orjson
import structlog

from routstr.ecash.bdhke import y_of
from routstr.ecash.errors import BadSignature
from routstr.ecash.outputs import unblind_all
from routstr.ecash.proof import BlindSignature, Proof
from routstr.errors import UntrustedMint
from routstr.flows.context import Context
from routstr.flows.mints import shown_keyset
from routstr.gateways.mint_failure import (
    MintMisbehaved,
    MintRefused,
    MintUnknown,
    Refusal,
)
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.leases import Postpone
from routstr.ledger.sagas import MarkSent, Operation, OperationState

log = structlog.get_logger()

BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 30.0
WATCH_FIRST_S: Final = 2.0
WATCH_MAX_S: Final = 3600.0  # spent tokens cost nothing to bring, so nearly nothing to watch
STALE_AGAIN_S: Final = 60.0
UNBLIND_INLINE_MAX: Final = 32  # half a millisecond each; more than these go to a thread
SPENT: Final = "spent"
STALE: Final = "stale"
DOUBTFUL: Final = "doubtful"
WATCHED: Final = "watched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The mint signed every output: these are the proofs, position by position, and their Ys."""

    proofs: tuple[Proof, ...] = field(repr=False)
    ys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A safe refusal: a definite no to the only POST, nothing signed, all inputs unspent."""

    code: int
    stale_keyset: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentElsewhere:
    """The inputs are spent and our outputs were not signed, as far as the mint tells.

    `spent` names those inputs. Definite when it refused our only POST for that, or, a while later,
    calls others unspent: a swap takes all of them or none.
    """

    spent: tuple[str, ...] = ()
    is_definite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The mint says PENDING: somebody's call on these inputs is running there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubtful:
    """The mint contradicts itself; credit nothing, look again for a day, tell the operator."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """Refused for its keyset, but not for the first time: a minute later that will be definite."""

    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """No usable answer; the operation stays `sent` and will be driven again."""

    cause: Exception


Open = SpentElsewhere | Waiting | Doubtful | Stale | Unknown
SwapOutcome = Signed | Refused | Open


Post = Callable[[Context, Operation, Priority], Awaitable[Sequence[BlindSignature]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known after a restore: `found` what the mint remembers, `refusal` the answer to the
    only POST, if that was one."""

    operation: Operation
    found: Signed | None
    refusal: MintRefused | None
    priority: Priority


Judge = Callable[[Context, Evidence], Awaitable[Signed | Open | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a kind of operation is posted, and what to ask when it is not known how that went.

    `judge` asks the mint and says what the evidence comes to; None if nothing has happened, so
    that the same bytes may be posted again. It may raise what the client of the mints raises.
    `name` is that of the failpoints.
    """

    name: str
    post: Post
    judge: Judge


async def run_swap(ctx: Context, operation: Operation, priority: Priority) -> SwapOutcome:
    """Drive a swap as far as the mint's answers allow; the caller holds its lease."""
    return await run_call(ctx, operation, priority, SWAP)


async def run_call(
    ctx: Context, operation: Operation, priority: Priority, call: Call
) -> SwapOutcome:
    """Drive an operation that ends with all its outputs signed; the caller holds its lease."""
    refusal: MintRefused | None = None
    if operation.state == OperationState.PREPARED:
        ctx.failpoint(f"{call.name}.prepared")
        await ctx.ledger.submit(MarkSent(operation_id=operation.id))
        ctx.failpoint(f"{call.name}.sent")
        answer = await _post(ctx, operation, priority, call)
        ctx.failpoint(f"{call.name}.answered")
        if isinstance(answer, Signed):
            return answer
        refusal = answer if isinstance(answer, MintRefused) else None
    return await _examine(ctx, operation, refusal, call)


async def _examine(
    ctx: Context, operation: Operation, refusal: MintRefused | None, call: Call
) -> SwapOutcome:
    """Ask what happened: NUT-09, `call.judge`, and only when nothing did, the same bytes again."""
    is_watched = operation.state is OperationState.WATCH
    priority = Priority.FLOAT if is_watched else Priority.RECOVERY
    try:
        found = await _restore(ctx, operation, priority)
        if isinstance(found, Doubtful):
            return found
        evidence = Evidence(operation=operation, found=found, refusal=refusal, priority=priority)
        verdict = await call.judge(ctx, evidence)
    except (MintUnknown, MintRefused, UntrustedMint) as error:
        return Unknown(cause=error)
    except (MintMisbehaved, BadSignature) as error:
        return Doubtful(reason=str(error))
    if verdict is not None:
        return verdict
    if refusal is not None and refusal.refusal.is_safe:
        return Refused(code=refusal.code, stale_keyset=refusal.refusal is Refusal.SAFE_REFRESH)
    answer = await _post(ctx, operation, priority, call)
    if isinstance(answer, Signed):
        return answer
    if isinstance(answer, MintRefused) and answer.refusal.is_safe:
        return _refused_again(ctx, operation, answer)
    return Unknown(cause=answer)


async def _post_swap(
    ctx: Context, operation: Operation, priority: Priority
) -> Sequence[BlindSignature]:
    return await ctx.mints.swap(operation.mint_url, operation.body, priority=priority)


async def _judge_swap(ctx: Context, evidence: Evidence) -> Signed | Open | None:
    """NUT-07: one call for the states of the inputs, and of the new proofs if there are any."""
    operation, found = evidence.operation, evidence.found
    ys = _input_ys(operation)
    new_ys = found.ys if found is not None else ()
    states = await ctx.mints.check_state(
        operation.mint_url, [*ys, *new_ys], priority=evidence.priority
    )
    if found is not None:
        coins = {states[y] for y in new_ys}
        return _confirmed(
            found, {states[y] for y in ys}, coins, may_be_spent=operation.is_from_copy
        )
    if ProofState.SPENT in states.values():
        was_told = evidence.refusal is not None and evidence.refusal.refusal is Refusal.SPENT
        is_watched = operation.state is OperationState.WATCH
        is_mixed = ProofState.UNSPENT in states.values()
        return SpentElsewhere(
            spent=tuple(y for y in ys if states[y] is ProofState.SPENT),
            is_definite=was_told or (is_watched and is_mixed),
        )
    return Waiting() if ProofState.PENDING in states.values() else None


SWAP: Final = Call(name="swap", post=_post_swap, judge=_judge_swap)


def _confirmed(
    found: Signed, inputs: Set[ProofState], outputs: Set[ProofState], *, may_be_spent: bool
) -> Signed | Waiting | Doubtful:
    """What was restored, if it is what the inputs were swapped for.

    Counters of the past, from an old copy of the database, make outputs that the mint signed in
    another life: its signatures say nothing of these inputs, and the coins may long be spent. But
    what was prepared before the copy was made had counters of its own: there spent coins are ours.
    """
    if ProofState.PENDING in inputs:
        return Waiting()
    if inputs == {ProofState.SPENT} and (may_be_spent or outputs == {ProofState.UNSPENT}):
        return found
    return Doubtful(reason="the mint signed these outputs for something else")


def _refused_again(
    ctx: Context, operation: Operation, answer: MintRefused
) -> Refused | Stale | Doubtful:
    """A safe code, but to a repeat: the first request may be on its way yet.

    A body for a keyset or a fee of the past can never run once the mint has said so; a minute is
    for the first request to arrive. Any other code is left to the watch, at the end of which
    no request of the day before is on its way any more.
    """
    if watched_enough(ctx, operation):
        return Refused(code=answer.code, stale_keyset=False)
    if answer.refusal is not Refusal.SAFE_REFRESH:
        return Doubtful(reason=f"refused with {answer.code} after an unknown answer")
    if operation.state is OperationState.WATCH and operation.last_code == STALE:
        return Refused(code=answer.code, stale_keyset=True)
    return Stale(code=answer.code)


async def _post(
    ctx: Context, operation: Operation, priority: Priority, call: Call
) -> Signed | MintRefused | MintUnknown | UntrustedMint:
    try:
        signatures = await call.post(ctx, operation, priority)
        return await _unblind(ctx, operation, signatures)
    except (MintRefused, MintUnknown, UntrustedMint) as error:
        return error
    except (MintMisbehaved, BadSignature) as error:
        log.error("mint_signed_wrongly", operation_id=operation.id, reason=str(error))
        return MintUnknown(str(error))


async def _restore(
    ctx: Context, operation: Operation, priority: Priority
) -> Signed | Doubtful | None:
    """The signatures the mint remembers (NUT-09): all, some (doubtful), or none."""
    messages = [output.message() for output in operation.outputs]
    found: Mapping[str, BlindSignature] = await ctx.mints.restore(
        operation.mint_url, messages, priority=priority
    )
    if not found:
        return None
    if len(found) != len(messages):
        return Doubtful(reason="the mint remembers some of the outputs only")
    return await _unblind(ctx, operation, [found[message.b_] for message in messages])


async def _unblind(
    ctx: Context, operation: Operation, signatures: Sequence[BlindSignature]
) -> Signed:
    keyset = await shown_keyset(ctx, operation.mint_url, operation.outputs[0].keyset_id)

    def signed() -> Signed:
        proofs = unblind_all(operation.outputs, signatures, keyset, require_dleq=True)
        return Signed(proofs=proofs, ys=tuple(y_of(proof.secret) for proof in proofs))

    if len(signatures) <= UNBLIND_INLINE_MAX:
        return signed()
    return await asyncio.to_thread(signed)


def _input_ys(operation: Operation) -> list[str]:
    proofs: list[dict[str, str]] = orjson.loads(operation.body)["inputs"]
    return [y_of(proof["secret"]) for proof in proofs]


def watched_enough(ctx: Context, operation: Operation) -> bool:
    """Whether the mint has denied our outputs for the whole watch: then they were never signed."""
    return operation.watch_until is not None and ctx.clock.now() >= operation.watch_until


async def postpone(ctx: Context, operation: Operation, outcome: Open) -> None:
    """Give the operation back with the state its outcome means, and a time to look again.

    What is watched stays so, and is looked at ever less often.
    """
    is_watched = operation.state is OperationState.WATCH
    match outcome:
        case Unknown(cause=cause):
            state, code = OperationState.SENT, type(cause).__name__
        case Waiting():
            state, code = OperationState.WAITING, "pending"
        case SpentElsewhere():
            state, code = OperationState.WATCH, SPENT
        case Stale():
            state, code = OperationState.WATCH, STALE
        case Doubtful(reason=reason):
            log.error("mint_in_doubt", operation_id=operation.id, reason=reason)
            state, code = OperationState.WATCH, DOUBTFUL
    begins_watch = state is OperationState.WATCH and not is_watched
    await ctx.ledger.submit(
        Postpone(
            operation_id=operation.id,
            owner=operation.lease_owner or ctx.owner,
            state=OperationState.WATCH if is_watched else state,
            wait_s=STALE_AGAIN_S if isinstance(outcome, Stale) else backoff_s(operation, state),
            code=code,
            watch_s=ctx.limits.mint_watch_s if begins_watch else None,
        )
    )


def backoff_s(operation: Operation, state: OperationState) -> float:
    """When to look again, in seconds, jittered by the operation's own id: a crowd spreads out."""
    doubled = 1 << min(operation.attempts, 20)
    if operation.state is OperationState.WATCH:
        wait_s = min(WATCH_FIRST_S * doubled, WATCH_MAX_S)
    elif state is OperationState.WATCH:
        wait_s = WATCH_FIRST_S
    else:
        wait_s = min(BACKOFF_FIRST_S * doubled, BACKOFF_MAX_S)
    return wait_s * (0.75 + int(operation.id[-2:], 16) % 64 / 128)
