"""Events of an upstream's Responses API -> parts of a turn.

Servers differ in what they send between `output_item.added` and `output_item.done`; what was not
streamed is taken from the item that is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gptoss_serve.errors import ServeError, UpstreamError
from gptoss_serve.events import Event, PartKind, Usage
from gptoss_serve.upstream.chat_reader import usage_of
from gptoss_serve.upstream.endpoint import Endpoint
from gptoss_serve.upstream.offered import Offer
from gptoss_serve.upstream.parts import PartLine
from gptoss_serve.upstream.refusals import relayed

Wire = Mapping[str, Any]

_TEXTS = (
    "output_text",
    "refusal",
    "reasoning_text",
    "reasoning",
    "function_call_arguments",
)
_SUMMARY = "reasoning_summary_text"


class ResponsesReader:
    """Reads one response; arguments and attributes are those of `ChatReader`."""

    def __init__(self, endpoint: Endpoint, offer: Offer, line: PartLine) -> None:
        self._endpoint = endpoint
        self._offer = offer
        self._line = line
        self._keys: dict[Any, str] = {}  # key of an open part by output index and by item id
        self._newest = ""
        self._count = 0
        self._with_text: set[str] = set()  # parts whose text came as such
        self._with_summary: set[str] = set()
        self._reason: str | None = None
        self.finish_reason: str | None = None
        self.usage = Usage()
        self.thoughts_field: str | None = None

    def read(self, wire: Wire) -> Iterator[Event]:
        """Take one event, or a whole response of a server that does not stream.

        Raises:
            ServeError: the upstream says that it failed.
        """
        kind = str(wire.get("type", ""))
        if kind == "response.output_item.added":
            yield from self._start(wire)
        elif kind == "response.output_item.done":
            yield from self._done(wire)
        elif kind.endswith(".delta"):
            yield from self._delta(wire, kind.removeprefix("response.").removesuffix(".delta"))
        elif kind in ("response.completed", "response.incomplete"):
            self._finish(wire.get("response") or {})
        elif kind in ("response.failed", "error") or wire.get("error"):
            error = (wire.get("response") or {}).get("error") or wire.get("error") or wire
            raise relayed(self._endpoint, {"error": error})
        elif wire.get("object") == "response":  # a server that does not stream
            for position, item in enumerate(wire.get("output") or ()):
                yield from self._done({"output_index": position, "item": item})
            self._finish(wire)

    def failure(self) -> ServeError | None:
        """Why a response whose stream is over is no answer."""
        if self.finish_reason is None:
            return UpstreamError(
                f"the upstream {self._endpoint.shown} ended its stream before the response did"
            )
        if self._reason == "content_filter":
            return UpstreamError(
                f"a content filter of the upstream {self._endpoint.shown} stopped the answer",
                code="content_filter",
            )
        return None

    def _start(self, wire: Wire) -> Iterator[Event]:
        item = wire.get("item") or {}
        kind = _kind(item)
        self._count += 1
        key = self._newest = f"item {self._count}"
        for name in (wire.get("output_index"), item.get("id")):
            if name is not None:
                self._keys[name] = key
        if kind == "call":
            offered = self._offer.named(str(item.get("name")))
            yield from self._line.start(key, offered.kind, offered=offered)
        elif kind is not None:
            yield from self._line.start(key, kind)

    def _delta(self, wire: Wire, name: str) -> Iterator[Event]:
        key, text = self._key(wire, wire.get("item_id")), wire.get("delta")
        if key not in self._line or not isinstance(text, str):
            return
        if name == _SUMMARY and key not in self._with_text:
            self._with_summary.add(key)
        elif name in _TEXTS and key not in self._with_summary:
            self._with_text.add(key)
        else:
            return
        yield from self._line.grow(key, text)

    def _done(self, wire: Wire) -> Iterator[Event]:
        item = wire.get("item") or {}
        key = self._key(wire, item.get("id"))
        if key not in self._line:
            yield from self._start(wire)
            key = self._newest
        if key not in self._line:
            return
        if key not in self._with_text | self._with_summary:
            yield from self._line.grow(key, _item_text(item))
        yield from self._line.end(key, complete=item.get("status") != "incomplete")

    def _key(self, wire: Wire, item_id: Any) -> str:
        """The part that an event is about; ids count more than indexes, which some miscount."""
        for name in (item_id, wire.get("output_index")):
            if name in self._keys and self._keys[name] in self._line:
                return self._keys[name]
        return self._newest

    def _finish(self, response: Wire) -> None:
        self.usage = usage_of(response.get("usage") or {})
        self.finish_reason = "stop"
        if response.get("status") == "incomplete":
            self.finish_reason = "length"
            self._reason = (response.get("incomplete_details") or {}).get("reason")


def _kind(item: Wire) -> PartKind | None:
    match item.get("type"):
        case "reasoning":
            return "reasoning"
        case "message":
            return "preamble" if item.get("phase") == "commentary" else "answer"
        case "function_call":
            return "call"
    return None  # of a hosted tool that nobody asked for


def _item_text(item: Wire) -> str:
    if item.get("type") == "function_call":
        return str(item.get("arguments") or "")
    parts = item.get("content") or item.get("summary") or ()
    texts = (part.get("text") or part.get("refusal") for part in parts)
    return "".join(text for text in texts if isinstance(text, str))
