"""What the node cannot do now, and why it does not start."""

from routstr.errors.base import RETRY_AFTER_S, RoutstrError

# ── 503: not now ──────────────────────────────────────────────────────────────────────────────


class ServiceUnavailable(RoutstrError):
    """The node cannot take this request now."""

    status, type, code = 503, "service_unavailable", "not_ready"
    retry_after_default_s = RETRY_AFTER_S


class Overloaded(ServiceUnavailable):
    """The node is at its limit; try again shortly."""

    code = "overloaded"


class MintShort(ServiceUnavailable):
    """The node holds too little ecash of that mint just now. Nothing was debited."""


class LightningAddressUnreachable(ServiceUnavailable):
    """The Lightning address cannot be reached now. Nothing was debited."""


class Paused(ServiceUnavailable):
    """The operator has paused this for now."""

    code = "paused"


# ── not answers: the node refuses to start ────────────────────────────────────────────────────


class ConfigError(Exception):
    """A setting is missing or unsafe; the message is one line naming the setting and why."""
