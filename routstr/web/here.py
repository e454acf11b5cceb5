"""Where this node is, as whoever asks reaches it."""

from starlette.requests import Request

from routstr.flows.context import Context


def address_of(request: Request, ctx: Context) -> str:
    """The node's base URL, without `/v1`: the one that is configured, else the request's own.

    A browser names scheme and host in `Origin`, also where a proxy ends TLS in front of the node;
    it counts only for the host that the request is for, so another site's page cannot name itself.
    """
    if ctx.facts.http_url:
        return ctx.facts.http_url.rstrip("/")
    own = str(request.base_url).rstrip("/")
    origin = request.headers.get("origin", "")
    host = request.url.netloc
    return origin if origin in (f"http://{host}", f"https://{host}") else own
