"""Traces as a collector gets them, over real HTTP: what is in them, and that nothing blocks."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from routstr.gateways.otlp import open_otlp
from routstr.gateways.traces import RequestSpan

SPAN = RequestSpan(
    request_id="req_1",
    operation="chat",
    model="maker/model",
    upstream="home",
    outcome="stalled",
    failure="stalled",
    input_tokens=10,
    output_tokens=5,
    charged_msat=145,
    total_ms=1_500,
    first_ms=200,
    ended_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


def test_a_span_that_cannot_be_costs_nothing_else() -> None:
    traces = open_otlp("http://127.0.0.1:9/v1/traces", "", service_name="node", version="1")
    traces.note(replace(SPAN, ended_at=datetime.min.replace(tzinfo=UTC)))
    traces.close()


async def test_a_collector_gets_each_request_with_the_names_of_the_conventions() -> None:
    got: list[tuple[str | None, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        got.append((request.headers.get("x-team"), await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # asyncio's
    try:
        traces = open_otlp(
            f"http://127.0.0.1:{port}/v1/traces", "X-Team=ours", service_name="node", version="1"
        )
        traces.note(SPAN)
        await asyncio.to_thread(traces.close)
    finally:
        await runner.cleanup()
    [(team, body)] = got
    assert team == "ours"
    found = ExportTraceServiceRequest.FromString(body)
    [resource] = found.resource_spans
    [span] = resource.scope_spans[0].spans
    said = {each.key: each.value for each in span.attributes}
    assert span.name == "chat maker/model"
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_500_000_000
    assert said["gen_ai.usage.input_tokens"].int_value == 10
    assert said["gen_ai.provider.name"].string_value == "home"
    assert said["error.type"].string_value == "stalled"
    assert said["routstr.charged_msat"].int_value == 145
