"""How one upstream is reached: where it is, what it speaks, and the node's own key there."""

from dataclasses import dataclass, field
from typing import Final

from routstr.log import Secret

BUILT_IN: Final = "upstream"
"""Id and slug of the upstream that the settings name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """One upstream, as the catalog of the moment has it; `base_url` is canonical.

    One that `is_local` is on the operator's own network, and nowhere else. `provider_type` says how
    a key is shown and how models are listed (`core.providers`).
    """

    id: str
    slug: str
    base_url: str
    provider_type: str = "openai-compatible"
    api_key: Secret = field(default_factory=lambda: Secret(""), repr=False)
    api_version: str | None = None
    allow_loopback_http: bool = False
    is_local: bool = False
