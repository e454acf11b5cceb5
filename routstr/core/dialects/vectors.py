"""Embeddings, moderations and rerankings: text in, numbers out, charged by what went in."""

from collections.abc import Mapping
from typing import Final

from routstr.core.dialects.chat_answer import json_object
from routstr.core.dialects.completions import texts_in
from routstr.core.dialects.whole import WholeDialect, refuse_stream
from routstr.core.money import ceil_div
from routstr.core.order import Order, model_id_in
from routstr.core.outcome import TEXT_BYTES_PER_TOKEN, Tally
from routstr.core.strict_json import parse_strictly
from routstr.core.unsupported import refuse_unsupported
from routstr.core.usage import INSANE, normalise_usage
from routstr.errors import InvalidParameter

INPUTS_MAX: Final = 2_048
DOCUMENTS_MAX: Final = 100  # what the vendors that charge by the search call one search
CHUNK_TOKENS: Final = 500  # of a document and the query: a longer one counts as several (Cohere)
FRAME_TOKENS_MAX: Final = 16  # what a model reads before and behind each of its inputs

_INPUT: Final[Mapping[str, str]] = {"model": "model", "input": "input", "stream": "stream"}
_RERANK: Final[Mapping[str, str]] = {
    "model": "model",
    "query": "query",
    "documents": "documents",
    "stream": "stream",
}


class _VectorsDialect(WholeDialect):
    """`results` names the list in the answer that is its output."""

    results: str

    def meter_body(self, body: bytes, *, order: Order, content_type: str, usage_cap: int) -> Tally:
        """Output is what the list holds; usage needs no output count."""
        value = json_object(body)
        if value is None:
            return Tally(malformed_events=1)
        reported = value.get("usage")
        if reported is None:
            meta = value.get("meta")  # Cohere
            reported = meta.get("tokens") if isinstance(meta, dict) else None
        usage = normalise_usage(reported, usage_cap, writes=False)
        results = value.get(self.results)
        return Tally(
            usage=None if usage is INSANE else usage,
            usage_insane=usage is INSANE,
            finish_seen=True,
            done_seen=True,
            output_seen=isinstance(results, list) and bool(results),
            error_seen=bool(value.get("error")),
        )


class _InputDialect(_VectorsDialect):
    """What takes an `input`."""

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order; each input may fill a context of its own."""
        value, serialised = parse_strictly(body, depth_max)
        refuse_unsupported(value, _INPUT)
        refuse_stream(value)
        media = _media_inputs(value.get("input"))
        inputs, text_bytes = (media, 0) if media else texts_in(value, "input")
        if inputs > INPUTS_MAX:
            raise InvalidParameter(f"input must hold at most {INPUTS_MAX}.", param="input")
        return Order(
            model_id=model_id_in(value),
            inputs=inputs,
            writes=False,
            input_unbounded=bool(media),
            media=frozenset({"audio_input", "image_input"} if media else ()),
            prompt_bytes=len(serialised) + inputs * FRAME_TOKENS_MAX,
            prompt_text_bytes=text_bytes,
            body=value,
        )


class EmbeddingsDialect(_InputDialect):
    """POST /embeddings."""

    path: Final = "/embeddings"
    results = "data"


class ModerationsDialect(_InputDialect):
    """POST /moderations."""

    path: Final = "/moderations"
    results = "results"


class RerankDialect(_VectorsDialect):
    """POST /rerank, as Cohere and Jina have it: every document is read beside the query."""

    path: Final = "/rerank"
    results = "results"

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order; a document with more than text in it may fill the context."""
        value, serialised = parse_strictly(body, depth_max)
        refuse_unsupported(value, _RERANK)
        refuse_stream(value)
        query, documents = value.get("query"), value.get("documents")
        if not isinstance(query, str) or not query:
            raise InvalidParameter("query must be a text.", param="query")
        if not isinstance(documents, list) or not 0 < len(documents) <= DOCUMENTS_MAX:
            raise InvalidParameter(
                f"documents must be a list of 1 to {DOCUMENTS_MAX}.", param="documents"
            )
        repeated_bytes = len(documents) * len(query.encode())
        return Order(
            model_id=model_id_in(value),
            inputs=len(documents),
            writes=False,
            calls=_searches(query, documents),
            input_unbounded=not all(_is_text(each) for each in documents),
            prompt_bytes=len(serialised) + repeated_bytes + len(documents) * FRAME_TOKENS_MAX,
            prompt_text_bytes=repeated_bytes + sum(_text_bytes(each) for each in documents),
            body=value,
        )


def _searches(query: str, documents: list[object]) -> int:
    """As how many searches it is billed where searches are, by our count of tokens."""
    query_bytes = len(query.encode())
    chunk_bytes = CHUNK_TOKENS * TEXT_BYTES_PER_TOKEN
    chunks = sum(ceil_div(query_bytes + _text_bytes(each), chunk_bytes) for each in documents)
    return ceil_div(chunks, DOCUMENTS_MAX)


def _media_inputs(given: object) -> int:
    """How many inputs there are, if some are objects (images and the like); else 0."""
    if not isinstance(given, list) or not any(isinstance(item, dict) for item in given):
        return 0
    return len(given)


def _is_text(document: object) -> bool:
    return isinstance(document, str) or (
        isinstance(document, dict)
        and all(isinstance(each, str) for each in document.values())
        and not document.keys() & {"image", "url", "image_url"}
    )


def _text_bytes(document: object) -> int:
    texts = document.values() if isinstance(document, dict) else (document,)
    return sum(len(text.encode()) for text in texts if isinstance(text, str))
