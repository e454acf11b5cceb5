"""The certificate authorities the node believes: loaded once, for all who call out."""

import ssl
from functools import cache

import httpx


@cache
def trusted() -> ssl.SSLContext:
    """A context that verifies every server, shared: whoever adds an authority makes one anew."""
    return httpx.create_ssl_context(trust_env=False)


@cache
def system_trusted() -> ssl.SSLContext:
    """The same by the authorities of the operator's system, who may have one of their own."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
