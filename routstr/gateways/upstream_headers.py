"""The headers that cross the node, built from scratch in both directions (guarantees.md SR-9).

Nothing is copied and then cleaned: a header that is not named here does not exist.
"""

import re
from collections.abc import Mapping
from typing import Final

from routstr.core.providers import PROVIDERS
from routstr.errors import InvalidParameter
from routstr.log import Secret

UP: Final = ("accept", "content-type", "anthropic-version", "anthropic-beta", "openai-beta")
ROUTE_UP: Final = (*UP, "accept-language")  # for what is sold by the request
_ROUTE_UP: Final = frozenset(ROUTE_UP)
DOWN: Final = {
    name.encode(): name for name in ("content-type", "openai-processing-ms", "retry-after")
}
HEARD_OF: Final = frozenset({*DOWN, b"content-encoding", b"date"})  # the rest is not even kept
VALUE_CHARS_MAX: Final = 1_024
JSON: Final = "application/json"
ANTHROPIC_VERSION: Final = "2023-06-01"  # for a client that names none

_CLEAN: Final = re.compile(r"[\t -~]*")


def headers_up(
    given: Mapping[str, str],
    api_key: Secret,
    *,
    provider_type: str = "",
    api_version: str | None = None,
) -> dict[str, str]:
    """What the upstream sees: `ROUTE_UP` from `given` (names in any case), our key, no compression.

    The key goes where the upstream's kind wants it (`core.providers`), a bearer if nobody says;
    `api_version` is for a client that names none.

    A name given twice in different spelling, or a value with CR, LF, NUL, another control or
    non-ASCII character, raises InvalidParameter (400).
    """
    found = {"content-type": JSON, "accept-encoding": "identity"}
    named = set()
    for name, value in given.items():
        lower = name.lower()
        if lower not in _ROUTE_UP:
            continue
        if lower in named or not is_clean_value(value):
            raise InvalidParameter("A header has a value this node cannot forward.", param=lower)
        named.add(lower)
        found[lower] = value
    found.update(_shown(api_key, provider_type, found.get("anthropic-version") or api_version))
    return found


def _shown(api_key: Secret, provider_type: str, version: str | None) -> dict[str, str]:
    """The header with our key, if we have one, and what goes with it."""
    provider = PROVIDERS.get(provider_type)
    name = "authorization" if provider is None else provider.key_header
    more = {}
    if is_anthropic(provider_type):
        more = {"anthropic-version": version or ANTHROPIC_VERSION}
    if not api_key:
        return more
    key = api_key.reveal()
    return {name: f"Bearer {key}" if name == "authorization" else key, **more}


def is_anthropic(provider_type: str) -> bool:
    """Whether versions are told in a header there, and not in the query."""
    provider = PROVIDERS.get(provider_type)
    return provider is not None and provider.listing == "anthropic"


def headers_down(given: Mapping[bytes, bytes]) -> dict[str, str]:
    """What the client may see of the upstream's headers (names in lower case): clean ones only."""
    found = {}
    for name, value in given.items():
        shown = DOWN.get(name)
        if shown is not None and is_clean_value(text := value.decode("latin-1")):
            found[shown] = text
    return found


def is_plain_encoding(content_encoding: bytes | None) -> bool:
    """Is the body sent as it is? We ask for `identity`; an upstream may answer otherwise."""
    return content_encoding is None or content_encoding.lower() in (b"", b"identity")


def is_clean_value(value: str) -> bool:
    """Visible ASCII, space and tab, bounded (RFC 9110 §5.5 without obs-text)."""
    return len(value) <= VALUE_CHARS_MAX and _CLEAN.fullmatch(value) is not None
