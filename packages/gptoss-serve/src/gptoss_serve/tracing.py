"""Traces in OpenTelemetry's words: a span per request, one per answer of the model, one per tool.

```
tracing = Tracing.exporting("http://127.0.0.1:4318")  # or None: as OTEL_* variables say
app = create_app(engine, watch=tracing)
...
tracing.close()
```

Names and attributes are those of the semantic conventions for HTTP servers and generative AI. A
`traceparent` header joins the caller's trace. No text of the conversation is in a span unless
asked. Needs the extra `otel`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from gptoss_harmony import Message, TextContent
from gptoss_harmony.errors import NotInstalled
from gptoss_serve.access_log import Exchange
from gptoss_serve.events import ToolAnswered, Usage
from gptoss_serve.watch import GenerationEnd, GenerationStart

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_PROVIDER = "openai"  # whose model it is, in the conventions' list
_NOTES = "gptoss-request"


class Tracing:
    """A `Watch` that writes spans.

    Args:
        provider: where spans go; shut down by `close`.
        prompts: put what was said into the spans.
    """

    def __init__(self, provider: TracerProvider, *, prompts: bool = False) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("gptoss_serve")
        self._prompts = prompts

    @classmethod
    def exporting(cls, url: str | None, *, prompts: bool = False) -> Self:
        """Send spans to a collector over OTLP.

        Args:
            url: of the collector; None leaves it to the OTEL_* variables of the environment.
            prompts: put what was said into the spans.

        Raises:
            NotInstalled: the extra is missing.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise NotInstalled(
                "traces need OpenTelemetry; install it with: pip install 'gptoss-serve[otel]'"
            ) from error
        endpoint = (
            None if url is None else f"{url.rstrip('/').removesuffix('/v1/traces')}/v1/traces"
        )
        given = OTELResourceDetector().detect()
        resource = Resource.create({"service.name": "gptoss"}).merge(given)
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        return cls(provider, prompts=prompts)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    @contextmanager
    def request(self, exchange: Exchange, headers: Mapping[bytes, bytes]) -> Iterator[None]:
        """A request: the spans of its work become children of its span."""
        from opentelemetry import context
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {
            name: headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in headers
        }
        parent = TraceContextTextMapPropagator().extract(carrier, context.Context())
        span = self._tracer.start_span(exchange.method, context=parent, kind=SpanKind.SERVER)
        exchange.trace_id = f"{span.get_span_context().trace_id:032x}"
        notes = _Notes(span)
        token = context.attach(context.set_value(_NOTES, notes, set_span_in_context(span, parent)))
        try:
            yield
        finally:
            context.detach(token)
            notes.end(exchange)

    @contextmanager
    def generation(self, start: GenerationStart) -> Iterator[Callable[[GenerationEnd], None]]:
        """One answer of the model."""
        from opentelemetry import context

        span = self._tracer.start_span(f"{start.operation} {start.model}")
        span.set_attributes(_asked(start))
        if self._prompts:
            span.set_attribute("gen_ai.input.messages", _shown(start.messages))
        notes: Any = context.get_value(_NOTES)

        def end(came: GenerationEnd) -> None:
            reasons = [came.reason] if came.reason else []
            span.set_attributes(_used(came.usage, reasons))
            if self._prompts:
                span.set_attribute("gen_ai.output.messages", _shown(came.messages))
            if isinstance(notes, _Notes):
                notes.add(start, came)

        with _ending(span):
            yield end

    @contextmanager
    def tool(self, call: Message) -> Iterator[Callable[[ToolAnswered], None]]:
        """One call of a tool."""
        name = (call.recipient or "").removeprefix("functions.")
        span = self._tracer.start_span(f"execute_tool {name}")
        span.set_attributes(
            {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": name,
                "gen_ai.tool.type": "function",
            }
        )
        if self._prompts:
            span.set_attribute("gen_ai.tool.call.arguments", _text(call))

        def end(answer: ToolAnswered) -> None:
            if answer.failed:
                span.set_attribute("error.type", "tool_error")
            if self._prompts:
                span.set_attribute("gen_ai.tool.call.result", answer.text)

        with _ending(span):
            yield end


class _Notes:
    """What the answers of one request came to, for the request's own span."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._usage = Usage()
        self._reasons: list[str] = []

    def add(self, start: GenerationStart, came: GenerationEnd) -> None:
        if not self._span.is_recording():
            return  # an answer in the background outlives its request
        self._usage += came.usage
        if came.reason is not None:
            self._reasons.append(came.reason)
        self._span.set_attributes({**_asked(start), **_used(self._usage, self._reasons)})

    def end(self, exchange: Exchange) -> None:
        from opentelemetry.trace import Status, StatusCode

        span = self._span
        span.update_name(f"{exchange.method} {exchange.route}")
        span.set_attributes(
            {
                "http.request.method": exchange.method,
                "http.route": exchange.route,
                "http.response.status_code": exchange.status,
                "url.path": exchange.path,
                "client.address": exchange.client,
                "gptoss.request_id": exchange.request_id,
            }
        )
        if exchange.status >= 500:
            span.set_attribute("error.type", str(exchange.status))
            span.set_status(Status(StatusCode.ERROR))
        span.end()


@contextmanager
def _ending(span: Span) -> Iterator[None]:
    """End a span, with the failure if there is one; a generator that is closed has not failed."""
    from opentelemetry.trace import Status, StatusCode

    try:
        yield
    except Exception as error:
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(Status(StatusCode.ERROR, str(error)[:200]))
        raise
    finally:
        span.end()


def _asked(start: GenerationStart) -> dict[str, Any]:
    sampling = start.sampling
    asked = {
        "gen_ai.operation.name": start.operation,
        "gen_ai.provider.name": _PROVIDER,
        "gen_ai.request.model": start.model,
        "gen_ai.response.model": start.model,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.seed": sampling.seed,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _used(usage: Usage, reasons: Sequence[str]) -> dict[str, Any]:
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        "gen_ai.response.finish_reasons": list(reasons),
    }


def _shown(messages: Sequence[Message]) -> str:
    """Messages as the conventions write them."""
    return json.dumps(
        [
            {
                "role": str(message.author.role.value),
                "parts": [{"type": "text", "content": _text(message)}],
            }
            for message in messages
        ],
        ensure_ascii=False,
    )


def _text(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextContent))
