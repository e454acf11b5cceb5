"""The dialects this node speaks, by the upstream's path."""

from collections.abc import Mapping
from typing import Final

from routstr.core.dialects.base import Dialect, StreamMeter
from routstr.core.dialects.chat import ChatDialect
from routstr.core.dialects.completions import CompletionsDialect
from routstr.core.dialects.messages import CountTokensDialect, MessagesDialect
from routstr.core.dialects.vectors import EmbeddingsDialect, ModerationsDialect, RerankDialect

__all__ = ["CHAT", "DIALECTS", "Dialect", "StreamMeter"]

CHAT: Final[Dialect] = ChatDialect()

_ALL: Final[tuple[Dialect, ...]] = (
    CHAT,
    CompletionsDialect(),
    MessagesDialect(),
    CountTokensDialect(),
    EmbeddingsDialect(),
    ModerationsDialect(),
    RerankDialect(),
)

DIALECTS: Final[Mapping[str, Dialect]] = {each.path: each for each in _ALL}
