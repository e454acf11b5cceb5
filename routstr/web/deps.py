"""What the ordinary endpoints are given: the context, the caller, and a checked Idempotency-Key."""

from typing import Annotated

from fastapi import Depends, Request

from routstr.errors import InvalidParameter
from routstr.flows.authenticate import Caller, authenticate
from routstr.flows.context import Context


def context_of(request: Request) -> Context:
    """The context the composition root put into the app."""
    ctx = request.app.state.ctx
    assert isinstance(ctx, Context)
    return ctx


Ctx = Annotated[Context, Depends(context_of)]


async def caller_of(request: Request, ctx: Ctx) -> Caller:
    """Who is calling. Raises MissingApiKey, InvalidApiKey and what a token deserves."""
    return await authenticate(ctx, request.headers)


def idempotency_key_of(request: Request, ctx: Ctx) -> str | None:
    """The request's Idempotency-Key, if it has one. Raises InvalidParameter for an unusable one."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= ctx.limits.idempotency_key_chars_max or not key.isprintable():
        raise InvalidParameter(
            f"Send 1 to {ctx.limits.idempotency_key_chars_max} printable characters.",
            param="Idempotency-Key",
        )
    return key


AnyCaller = Annotated[Caller, Depends(caller_of)]
IdempotencyKey = Annotated[str | None, Depends(idempotency_key_of)]
