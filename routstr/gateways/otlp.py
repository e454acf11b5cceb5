"""Traces over OTLP/HTTP, by OpenTelemetry's own SDK: the extra `otel`, imported only if wanted.

Names are those of the GenAI semantic conventions; what they have none for begins with `routstr.`.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from routstr.gateways.traces import RequestSpan

log = structlog.get_logger()

NS_PER_S: Final = 1_000_000_000
NS_PER_US: Final = 1_000
CLOSE_MS: Final = 3_000
TIMEOUT_S: Final = 5


class OtlpTraces:
    """One tracer of the SDK with an exporter of its own; nothing global is set."""

    def __init__(self, exporter: SpanExporter, *, service_name: str, version: str) -> None:
        """Spans are exported by a thread of the SDK, in batches, and dropped when it is behind."""
        named = {"service.name": service_name, "service.version": version}
        self._provider = TracerProvider(resource=Resource(named), shutdown_on_exit=False)
        self._processor = BatchSpanProcessor(exporter)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("routstr", version)

    def note(self, span: RequestSpan) -> None:
        """Begin and end a span of the times it says; whatever fails costs the span alone."""
        try:
            self._note(span)
        except Exception:  # broad: what it tells of is charged already, and must be answered
            log.exception("trace_lost", request_id=span.request_id)

    def _note(self, span: RequestSpan) -> None:
        began_at = span.ended_at - timedelta(milliseconds=span.total_ms)
        noted = self._tracer.start_span(
            f"{span.operation} {span.model}",
            kind=SpanKind.CLIENT,
            start_time=_ns(began_at.timestamp()),
            attributes=_attributes(span),
        )
        if span.failure is not None:
            noted.set_attribute("error.type", span.failure)
            noted.set_status(Status(StatusCode.ERROR))
        noted.end(end_time=_ns(span.ended_at.timestamp()))

    def close(self) -> None:
        """Export what is left."""
        self._processor.force_flush(CLOSE_MS)
        self._provider.shutdown()


def open_otlp(endpoint: str, headers: str, *, service_name: str, version: str) -> OtlpTraces:
    """Traces to the collector at `endpoint` (…/v1/traces).

    `headers` are `name=value`, comma-separated, as OTEL_EXPORTER_OTLP_HEADERS has them.
    """
    pairs = (each.partition("=") for each in headers.split(",") if each.strip())
    named = {name.strip().lower(): value.strip() for name, _, value in pairs}
    exporter = OTLPSpanExporter(endpoint=endpoint, headers=named, timeout=TIMEOUT_S)
    return OtlpTraces(exporter, service_name=service_name, version=version)


def _ns(unix_s: float) -> int:
    return round(unix_s * NS_PER_S / NS_PER_US) * NS_PER_US


def _attributes(span: RequestSpan) -> Mapping[str, AttributeValue]:
    said: dict[str, AttributeValue] = {
        "gen_ai.operation.name": span.operation,
        "gen_ai.provider.name": span.upstream,
        "gen_ai.request.model": span.model,
        "gen_ai.usage.input_tokens": span.input_tokens,
        "gen_ai.usage.output_tokens": span.output_tokens,
        "routstr.request_id": span.request_id,
        "routstr.outcome": span.outcome,
        "routstr.charged_msat": span.charged_msat,
    }
    if span.first_ms is not None:
        said["routstr.first_ms"] = span.first_ms
    return said
