"""Spans over the wire: a collector of our own reads what a real server exports."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gptoss_harmony.testing import require
from gptoss_serve.tracing import Tracing

TOOL = (
    "<|channel|>analysis to=python code<|message|>print(6 * 7)<|call|>",
    "<|channel|>final<|message|>It is 42.<|return|>",
)
HELLO = "<|channel|>final<|message|>Hello.<|return|>"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"

pytestmark = pytest.mark.slow
Launch = Callable[..., Any]
Span = dict[str, Any]


@pytest.fixture(autouse=True)
def otel() -> None:
    try:
        import opentelemetry.exporter.otlp.proto.http
        import opentelemetry.sdk  # noqa: F401
    except ImportError:
        require(False, "OpenTelemetry is not installed (the extra otel)")


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP over HTTP and keeps the spans as plain data."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []
        self.raw = b""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        self.server.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {x.key: x.value.string_value for x in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.server.spans += [plain(span, names) for span in scope.spans]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def plain(span: Any, resource: dict[str, str]) -> Span:
    return {
        "name": span.name,
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "trace": span.trace_id.hex(),
        "kind": span.kind,
        "failed": span.status.code == 2,
        "service": resource["service.name"],
        **{entry.key: value(entry.value) for entry in span.attributes},
    }


def value(given: Any) -> Any:
    kind = given.WhichOneof("value")
    if kind == "array_value":
        return [value(entry) for entry in given.array_value.values]
    return getattr(given, kind)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def stopped(server: Any) -> None:
    """Stop a server; its spans are out then."""
    server.signal(15)
    assert server.wait() == 0
    assert "Traceback" not in server.log


def test_a_request_is_a_tree_of_spans(launch: Launch, collector: Collector) -> None:
    server = launch("--otel", collector.url, "--alias", "gpt-oss-20b", replies=[HELLO])
    answer = server.http.post(
        "/v1/responses",
        json={"input": "a secret", "temperature": 0.5, "max_output_tokens": 50},
        headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
    )
    assert answer.status_code == 200
    server.http.post("/v1/chat/completions", json={"messages": [{"role": "x"}]})
    server.http.post("/v1/completions", json={"prompt": "Once"})
    stopped(server)
    usage = answer.json()["usage"]
    spans = {span["id"]: span for span in collector.spans}
    top = next(s for s in spans.values() if s["name"] == "POST /v1/responses")
    assert (top["trace"], top["parent"], top["kind"]) == (TRACE, PARENT, 2)
    assert (top["service"], top["http.response.status_code"]) == ("gptoss", 200)
    (child,) = [s for s in spans.values() if s["parent"] == top["id"]]
    assert child["name"] == "chat scripted"
    for span in (top, child):
        assert span["gen_ai.operation.name"] == "chat"
        assert span["gen_ai.request.model"] == span["gen_ai.response.model"] == "scripted"
        assert span["gen_ai.usage.input_tokens"] == usage["input_tokens"]
        assert span["gen_ai.usage.output_tokens"] == usage["output_tokens"]
        assert span["gen_ai.response.finish_reasons"] == ["stop"]
        assert span["gen_ai.request.temperature"] == 0.5
        assert span["gen_ai.request.max_tokens"] == 50
    refused = next(s for s in spans.values() if s["name"] == "POST /v1/chat/completions")
    assert (refused["http.response.status_code"], refused["failed"]) == (400, False)
    assert "text_completion scripted" in [s["name"] for s in spans.values()]
    assert b"secret" not in collector.raw
    line = next(x for x in server.lines if x["path"] == "/v1/responses")
    assert line["trace_id"] == TRACE


def test_prompts_are_in_spans_and_log_when_asked(
    launch: Launch, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    server = launch("--log-prompts")
    server.http.post("/v1/responses", json={"input": "a secret"})
    stopped(server)
    chat = next(s for s in collector.spans if s["name"] == "chat scripted")
    assert chat["service"] == "mine"
    said = json.loads(chat["gen_ai.input.messages"])
    assert said[-1] == {"role": "user", "parts": [{"type": "text", "content": "a secret"}]}
    answered = json.loads(chat["gen_ai.output.messages"])
    assert answered[-1]["parts"][0]["content"] == "Hello there."
    line = next(x for x in server.lines if x["path"] == "/v1/responses")
    assert json.loads(line["request"]) == {"input": "a secret"}


def test_tools_have_spans_and_a_closed_answer_ends_its_own(serve: Any) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    server = serve(list(TOOL), watch=Tracing(provider))
    import httpx

    httpx.post(f"{server.url}/v1/responses", json={"input": "6 * 7"}, timeout=60)
    server.stop()
    spans = exporter.get_finished_spans()
    assert [s.name for s in spans] == [
        "chat scripted",
        "execute_tool python",
        "chat scripted",
        "POST /v1/responses",
    ]
    tool, top = spans[1], spans[3]
    assert tool.attributes is not None
    assert tool.attributes["gen_ai.tool.name"] == "python"
    assert tool.attributes["error.type"] == "tool_error"  # there is no python here
    assert top.attributes is not None
    assert top.attributes["gen_ai.response.finish_reasons"] == ("stop", "stop")
    assert all(s.parent is not None and s.parent.span_id == top.context.span_id for s in spans[:3])
