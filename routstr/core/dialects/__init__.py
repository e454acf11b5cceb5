"""The dialects this node speaks, by the upstream's path."""

from collections.abc import Mapping
from typing import Final

from routstr.core.dialects.base import Dialect, StreamMeter
from routstr.core.dialects.chat import ChatDialect
from routstr.core.dialects.completions import CompletionsDialect
from routstr.core.dialects.images import EditDialect, GenerationDialect, VariationDialect
from routstr.core.dialects.messages import CountTokensDialect, MessagesDialect
from routstr.core.dialects.responses import ResponsesDialect
from routstr.core.dialects.speech import SpeechDialect
from routstr.core.dialects.transcripts import TranscriptionDialect, TranslationDialect
from routstr.core.dialects.vectors import EmbeddingsDialect, ModerationsDialect, RerankDialect

__all__ = ["CHAT", "DIALECTS", "Dialect", "StreamMeter"]

CHAT: Final[Dialect] = ChatDialect()

_ALL: Final[tuple[Dialect, ...]] = (
    CHAT,
    CompletionsDialect(),
    MessagesDialect(),
    CountTokensDialect(),
    ResponsesDialect(),
    EmbeddingsDialect(),
    ModerationsDialect(),
    RerankDialect(),
    GenerationDialect(),
    EditDialect(),
    VariationDialect(),
    SpeechDialect(),
    TranscriptionDialect(),
    TranslationDialect(),
)

DIALECTS: Final[Mapping[str, Dialect]] = {each.path: each for each in _ALL}
