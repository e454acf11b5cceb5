"""What the ordinary endpoints are given: the context, the caller, and a checked Idempotency-Key."""

from typing import Annotated

from fastapi import Depends, Request

from routstr.errors import InvalidApiKey, RefundKeyNotFound
from routstr.flows.authenticate import Caller, authenticate
from routstr.flows.context import Context
from routstr.flows.repeat import idempotency_key


def context_of(request: Request) -> Context:
    """The context the composition root put into the app."""
    ctx = request.app.state.ctx
    assert isinstance(ctx, Context)
    return ctx


Ctx = Annotated[Context, Depends(context_of)]


async def opening_caller_of(request: Request, ctx: Ctx) -> Caller:
    """Who is calling; a token never seen opens an account (contract, section 4).

    Raises MissingApiKey, InvalidApiKey and what a token deserves.
    """
    return await authenticate(ctx, request.headers)


async def caller_of(request: Request, ctx: Ctx) -> Caller:
    """Who is calling, by a key or by a token that opened one; raises what `opening_caller_of` does.

    A token never seen is nobody's.
    """
    return await authenticate(ctx, request.headers, opens=False)


async def refunded_caller_of(request: Request, ctx: Ctx) -> Caller:
    """Who is calling; nobody's key has a code of its own here."""
    try:
        return await caller_of(request, ctx)
    except InvalidApiKey as error:
        raise RefundKeyNotFound from error


def idempotency_key_of(request: Request, ctx: Ctx) -> str | None:
    """The digest of the request's Idempotency-Key, if it has one. Raises InvalidParameter."""
    return idempotency_key(ctx, request.headers)


AnyCaller = Annotated[Caller, Depends(opening_caller_of)]
KnownCaller = Annotated[Caller, Depends(caller_of)]
RefundedCaller = Annotated[Caller, Depends(refunded_caller_of)]
IdempotencyKey = Annotated[str | None, Depends(idempotency_key_of)]
