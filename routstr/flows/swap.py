"""One swap at a mint, from the committed intent to a definite answer, or to a known unknown.

Algorithm A, steps 3 to 5. What is true if the process dies: before `sent` is committed nothing was
posted; after it the mint may have signed, so nothing is concluded from silence. The next owner of
the operation restores (NUT-09), asks for the inputs' state (NUT-07), and only then may post the
same bytes again; another body is never posted for the same operation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson
import structlog

from routstr.ecash.bdhke import y_of
from routstr.ecash.errors import BadSignature
from routstr.ecash.outputs import Output, unblind_all
from routstr.ecash.proof import BlindSignature, Keyset, Proof
from routstr.flows.context import Context
from routstr.flows.mints import known_mint
from routstr.gateways.mint_failure import (
    MintMisbehaved,
    MintRefused,
    MintUnknown,
    Refusal,
)
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.sagas import MarkSent, Operation, OperationState, Postpone

log = structlog.get_logger()

BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 30.0
SPENT_AGAIN_S: Final = 2.0


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
    """The inputs are spent and our outputs were not signed, as far as the mint tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The mint says PENDING: somebody's call on these inputs is running there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubtful:
    """The mint contradicts itself; credit nothing, look again for a day, tell the operator."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """No usable answer; the operation stays `sent` and will be driven again."""

    cause: Exception


SwapOutcome = Signed | Refused | SpentElsewhere | Waiting | Doubtful | Unknown


async def run_swap(ctx: Context, operation: Operation, priority: Priority) -> SwapOutcome:
    """Drive the operation as far as the mint's answers allow; the caller holds its lease."""
    refusal: MintRefused | None = None
    if operation.state == OperationState.PREPARED:
        ctx.failpoint("swap.prepared")
        await ctx.ledger.submit(MarkSent(operation_id=operation.id))
        ctx.failpoint("swap.sent")
        answer = await _post(ctx, operation, priority)
        ctx.failpoint("swap.answered")
        if isinstance(answer, Signed):
            return answer
        refusal = answer if isinstance(answer, MintRefused) else None
    return await _examine(ctx, operation, refusal)


async def _examine(ctx: Context, operation: Operation, refusal: MintRefused | None) -> SwapOutcome:
    """Ask what happened: NUT-09, NUT-07, and only when nothing did, the same bytes again."""
    try:
        found = await _restore(ctx, operation)
        if isinstance(found, Signed | Doubtful):
            return found
        states = await ctx.mints.check_state(operation.mint_url, _input_ys(operation))
    except (MintUnknown, MintRefused) as error:
        return Unknown(cause=error)
    except (MintMisbehaved, BadSignature) as error:
        return Doubtful(reason=str(error))
    if ProofState.SPENT in states.values():
        return SpentElsewhere()
    if ProofState.PENDING in states.values():
        return Waiting()
    if refusal is not None and refusal.refusal.is_safe:
        return Refused(code=refusal.code, stale_keyset=refusal.refusal is Refusal.SAFE_REFRESH)
    answer = await _post(ctx, operation, Priority.RECOVERY)
    if isinstance(answer, Signed):
        return answer
    if isinstance(answer, MintRefused) and answer.refusal.is_safe:
        return Doubtful(reason=f"refused with {answer.code} after an unknown answer")
    return Unknown(cause=answer)


async def _post(
    ctx: Context, operation: Operation, priority: Priority
) -> Signed | MintRefused | MintUnknown:
    try:
        signatures = await ctx.mints.swap(operation.mint_url, operation.body, priority=priority)
        return await _unblind(ctx, operation, signatures)
    except (MintRefused, MintUnknown) as error:
        return error
    except (MintMisbehaved, BadSignature) as error:
        log.error("mint_signed_wrongly", operation_id=operation.id, reason=str(error))
        return MintUnknown(str(error))


async def _restore(ctx: Context, operation: Operation) -> Signed | Doubtful | None:
    """The signatures the mint remembers (NUT-09): all, some (doubtful), or none."""
    messages = [output.message() for output in operation.outputs]
    found: Mapping[str, BlindSignature] = await ctx.mints.restore(operation.mint_url, messages)
    if not found:
        return None
    if len(found) != len(messages):
        return Doubtful(reason="the mint remembers some of the outputs only")
    return await _unblind(ctx, operation, [found[message.b_] for message in messages])


async def _unblind(
    ctx: Context, operation: Operation, signatures: Sequence[BlindSignature]
) -> Signed:
    keyset = await _keyset(ctx, operation.mint_url, operation.outputs)
    proofs = unblind_all(operation.outputs, signatures, keyset, require_dleq=True)
    return Signed(proofs=proofs, ys=tuple(y_of(proof.secret) for proof in proofs))


async def _keyset(ctx: Context, mint_url: str, outputs: Sequence[Output]) -> Keyset:
    mint = await known_mint(ctx, mint_url)
    return next(keyset for keyset in mint.keysets if keyset.id == outputs[0].keyset_id)


def _input_ys(operation: Operation) -> list[str]:
    proofs: list[dict[str, str]] = orjson.loads(operation.body)["inputs"]
    return [y_of(proof["secret"]) for proof in proofs]


async def postpone(
    ctx: Context,
    operation: Operation,
    outcome: SpentElsewhere | Waiting | Doubtful | Unknown,
) -> None:
    """Give the operation back with the state its outcome means, and a time to look again."""
    wait_s = min(BACKOFF_FIRST_S * 2 ** min(operation.attempts, 10), BACKOFF_MAX_S)
    jittered_s = wait_s * (0.75 + int(operation.id[-2:], 16) % 64 / 128)
    match outcome:
        case Unknown(cause=cause):
            step = Postpone(
                operation_id=operation.id,
                owner=ctx.owner,
                state=operation.state
                if operation.state is OperationState.WATCH
                else OperationState.SENT,
                wait_s=jittered_s,
                code=type(cause).__name__,
            )
        case Waiting():
            step = Postpone(
                operation_id=operation.id,
                owner=ctx.owner,
                state=OperationState.WAITING,
                wait_s=jittered_s,
                code="pending",
            )
        case SpentElsewhere():
            step = _watch(ctx, operation, "spent", max(SPENT_AGAIN_S, jittered_s))
        case Doubtful(reason=reason):
            log.error("mint_in_doubt", operation_id=operation.id, reason=reason)
            step = _watch(ctx, operation, "doubtful", BACKOFF_MAX_S)
    await ctx.ledger.submit(step)


def _watch(ctx: Context, operation: Operation, code: str, wait_s: float) -> Postpone:
    is_new = operation.state is not OperationState.WATCH
    return Postpone(
        operation_id=operation.id,
        owner=ctx.owner,
        state=OperationState.WATCH,
        wait_s=wait_s,
        code=code,
        watch_s=ctx.limits.mint_watch_s if is_new else None,
    )
