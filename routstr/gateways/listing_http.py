"""Asking an upstream for its list of models: a GET that costs nothing, so it needs no hold.

Laws: the address is judged when it is connected to (SR-7), no redirect, no proxy, bounded in time
and size. The node's key goes into the header that this kind of upstream reads, and nowhere else.
"""

from typing import Final

from routstr.core.providers import PROVIDERS
from routstr.errors import ConfigError
from routstr.gateways.listing import BadListing, ListedModel, read_listing
from routstr.gateways.pool import client_of
from routstr.gateways.upstream import Deadlines
from routstr.gateways.upstream_config import UpstreamConfig
from routstr.gateways.upstream_failure import UpstreamFailure, UpstreamGarbled, UpstreamTooLarge

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
TOTAL_S: Final = 30.0
ANTHROPIC_QUERY: Final = "limit=1000"
NO_ANSWER: Final = "it did not answer (check the URL; on your own network it needs --local)"


class NoListing(Exception):
    """The upstream gave no list of models; the message says why, without URL, key or answer."""


class ModelLists:
    """Fetches lists, a connection each: it happens a few times an hour."""

    def __init__(self, *, total_s: float = TOTAL_S) -> None:
        self._total_s = total_s

    async def fetch(self, upstream: UpstreamConfig) -> list[ListedModel]:
        """What `upstream` lists now. Raises NoListing."""
        is_anthropic = PROVIDERS[upstream.provider_type].listing == "anthropic"
        limit_s = self._total_s
        deadlines = Deadlines(
            connect_s=limit_s, first_byte_s=limit_s, idle_s=limit_s, total_s=limit_s
        )
        try:
            async with client_of(upstream) as client:
                reply = await client.look(
                    "/models", query=ANTHROPIC_QUERY if is_anthropic else "", deadlines=deadlines
                )
                if reply.status != 200:
                    raise NoListing(f"it answered with status {reply.status}{_hint(reply.status)}")
                return read_listing(await reply.read_all(ANSWER_BYTES_MAX))
        except BadListing as error:
            raise NoListing(f"its list cannot be used: {error}") from error
        except UpstreamTooLarge as error:
            raise NoListing("its list is too large") from error
        except UpstreamGarbled as error:
            raise NoListing(error.reason) from error
        except (UpstreamFailure, ConfigError, ValueError) as error:
            raise NoListing(NO_ANSWER) from error


def _hint(status: int) -> str:
    """What the operator might look at."""
    match status:
        case 401 | 403:
            return " (check its key)"
        case 404 | 405 | 301 | 302 | 307 | 308:
            return " (check the URL, up to and including /v1)"
        case _:
            return ""
