"""The kinds of upstreams: what each speaks, where it is, and how it wants the node's key.

A path is ours, without `/v1` (`/chat/completions`); an upstream that does not speak it is no
candidate for a request to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from routstr.core.url import host_of

CHAT: Final = "/chat/completions"
COMPLETIONS: Final = "/completions"
RESPONSES: Final = "/responses"
MESSAGES: Final = "/messages"
COUNT_TOKENS: Final = "/messages/count_tokens"
EMBEDDINGS: Final = "/embeddings"
MODERATIONS: Final = "/moderations"
RERANK: Final = "/rerank"
IMAGES: Final = frozenset({"/images/generations", "/images/edits", "/images/variations"})
SPEECH: Final = "/audio/speech"
HEARING: Final = frozenset({"/audio/transcriptions", "/audio/translations"})

EVERY_PATH: Final = (
    frozenset({CHAT, COMPLETIONS, RESPONSES, MESSAGES, COUNT_TOKENS})
    | {EMBEDDINGS, MODERATIONS, RERANK, SPEECH}
    | IMAGES
    | HEARING
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One kind. `base_url` is empty where only the operator knows it.

    `key_header` is the header its key goes into, `listing` how its list of models reads.
    """

    name: str
    paths: frozenset[str]
    base_url: str = ""
    key_header: Literal["authorization", "x-api-key", "api-key"] = "authorization"
    listing: Literal["openai", "openrouter", "anthropic"] = "openai"
    prices_from: str | None = None
    """Its name in the public list of prices; None: the base URL or the operator tells."""


PROVIDERS: Final[Mapping[str, Provider]] = {
    "openai": Provider(
        name="OpenAI",
        paths=EVERY_PATH - {MESSAGES, COUNT_TOKENS, RERANK},
        base_url="https://api.openai.com/v1",
        prices_from="openai",
    ),
    "anthropic": Provider(
        name="Anthropic",
        paths=frozenset({MESSAGES, COUNT_TOKENS}),
        base_url="https://api.anthropic.com/v1",
        key_header="x-api-key",
        listing="anthropic",
        prices_from="anthropic",
    ),
    "openrouter": Provider(
        name="OpenRouter",
        paths=frozenset({CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS}),
        base_url="https://openrouter.ai/api/v1",
        listing="openrouter",
        prices_from="openrouter",
    ),
    "groq": Provider(
        name="Groq",
        paths=frozenset({CHAT, RESPONSES, SPEECH}) | HEARING,
        base_url="https://api.groq.com/openai/v1",
        prices_from="groq",
    ),
    "azure": Provider(
        name="Azure OpenAI",
        paths=EVERY_PATH - {MESSAGES, COUNT_TOKENS, MODERATIONS, RERANK},
        key_header="api-key",
        prices_from="azure",
    ),
    "ollama": Provider(name="Ollama", paths=frozenset({CHAT, COMPLETIONS, EMBEDDINGS})),
    "vllm": Provider(
        name="vLLM", paths=frozenset({CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, RERANK}) | HEARING
    ),
    "openai-compatible": Provider(name="OpenAI-compatible", paths=EVERY_PATH),
}


_READER: Final = "openrouter"
_READER_HOST: Final = "openrouter.ai"


def bills_files_apart(provider_type: str, base_url: str) -> bool:
    """Whether documents are read there at a price per page, for models that cannot do it.

    OpenRouter's guide to PDF inputs: two dollars for a thousand pages, unless the model takes files
    itself; a page can be a few bytes, and is in no count of tokens.
    """
    host = host_of(base_url)
    return provider_type == _READER or host == _READER_HOST or host.endswith(f".{_READER_HOST}")
