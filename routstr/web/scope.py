"""What a plain ASGI part finds in its scope: the context, the request's id."""

from starlette.types import Scope

from routstr.flows.context import Context


def context_of(scope: Scope) -> Context:
    """The context the composition root put into the app's state before it opened the doors."""
    ctx = scope["app"].state.ctx
    assert isinstance(ctx, Context)
    return ctx


def request_id_of(scope: Scope) -> str:
    """The request's id as the middleware gave it."""
    return str(scope["state"]["request_id"])
