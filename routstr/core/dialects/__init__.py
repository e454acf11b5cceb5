"""The dialects this node speaks, by the upstream's path."""

from collections.abc import Mapping
from typing import Final

from routstr.core.dialects.base import Dialect, StreamMeter
from routstr.core.dialects.chat import ChatDialect

__all__ = ["CHAT", "DIALECTS", "Dialect", "StreamMeter"]

CHAT: Final[Dialect] = ChatDialect()

DIALECTS: Final[Mapping[str, Dialect]] = {each.path: each for each in (CHAT,)}
