"""The certificate authorities the node believes: loaded once, for all who call out."""

import ssl
from functools import cache

import httpx


@cache
def trusted() -> ssl.SSLContext:
    """A context that verifies every server, shared: whoever adds an authority makes one anew."""
    return httpx.create_ssl_context(trust_env=False)
