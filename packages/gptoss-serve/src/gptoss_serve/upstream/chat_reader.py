"""Chunks of Chat Completions -> parts of a turn.

Thoughts are read from `reasoning` or `reasoning_content`, whichever a server writes; a text part
is over when another kind begins, calls are over at the end of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gptoss_serve.errors import ServeError, UpstreamError
from gptoss_serve.events import Event, PartKind, Usage
from gptoss_serve.upstream.endpoint import Endpoint
from gptoss_serve.upstream.offered import Offer
from gptoss_serve.upstream.parts import PartLine
from gptoss_serve.upstream.refusals import relayed

_THOUGHTS = ("reasoning", "reasoning_content")
_CUT = ("length", "max_tokens")


class ChatReader:
    """Reads one answer.

    Args:
        endpoint: for errors.
        offer: what could be called.
        line: gets the parts.

    Attributes:
        finish_reason: `stop` or `length`, once it is known.
        usage: tokens, where the server says.
        thoughts_field: the name under which thoughts came, or None.
    """

    def __init__(self, endpoint: Endpoint, offer: Offer, line: PartLine) -> None:
        self._endpoint = endpoint
        self._offer = offer
        self._line = line
        self._text: tuple[int, PartKind] | None = None  # the open text part
        self._calls: dict[Any, tuple[str, Any]] = {}  # newest call of each index: its key, its id
        self._count = 0
        self.finish_reason: str | None = None
        self.usage = Usage()
        self.thoughts_field: str | None = None

    def read(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """Take one chunk, or a whole completion of a server that does not stream.

        Raises:
            ServeError: the upstream says that it failed.
        """
        if chunk.get("error"):
            raise relayed(self._endpoint, chunk)
        if isinstance(chunk.get("usage"), Mapping):
            self.usage = usage_of(chunk["usage"])
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return
        choice = choices[0]
        if choice.get("finish_reason") == "error":
            raise relayed(self._endpoint, choice)
        delta = choice.get("delta") or choice.get("message") or {}
        yield from self._thoughts(delta)
        yield from self._say("answer", _text(delta.get("content")))
        yield from self._say("answer", _text(delta.get("refusal")))
        for position, call in enumerate(delta.get("tool_calls") or ()):
            yield from self._call(call, position)
        self._finish(choice.get("finish_reason"))

    def failure(self) -> ServeError | None:
        """Why an answer whose stream is over is no answer."""
        if self.finish_reason is None:
            return UpstreamError(
                f"the upstream {self._endpoint.shown} ended its stream before the answer was over"
            )
        if self.finish_reason == "content_filter":
            return UpstreamError(
                f"a content filter of the upstream {self._endpoint.shown} stopped the answer",
                code="content_filter",
            )
        return None

    def _thoughts(self, delta: Mapping[str, Any]) -> Iterator[Event]:
        for name in _THOUGHTS:
            text = delta.get(name)
            if isinstance(text, str) and text:
                self.thoughts_field = name
                yield from self._say("reasoning", text)
                return

    def _say(self, kind: PartKind, text: str) -> Iterator[Event]:
        if not text:
            return
        if self._text is None or self._text[1] != kind:
            yield from self._end_text()
            self._count += 1
            self._text = (self._count, kind)
            yield from self._line.start(self._count, kind)
        yield from self._line.grow(self._text[0], text)

    def _end_text(self) -> Iterator[Event]:
        if self._text is not None:
            yield from self._line.end(self._text[0])
            self._text = None

    def _call(self, call: Mapping[str, Any], position: int) -> Iterator[Event]:
        function = call.get("function") or {}
        index, call_id = call.get("index", position), call.get("id")
        known = self._calls.get(index)
        # Some servers give every call the index 0; a new id beside a name is a new call.
        is_new = known is None or (call_id and function.get("name") and call_id != known[1])
        if is_new:
            yield from self._end_text()
            key = f"call {len(self._calls)} {call_id}"
            self._calls[index] = known = (key, call_id)
            offered = self._offer.named(str(function.get("name")))
            yield from self._line.start(key, offered.kind, offered=offered)
        assert known is not None
        arguments = function.get("arguments")
        if arguments:
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            yield from self._line.grow(known[0], text)

    def _finish(self, reason: Any) -> None:
        if isinstance(reason, str) and reason:
            self.finish_reason = "length" if reason in _CUT else reason
            if self.finish_reason not in ("length", "content_filter"):
                self.finish_reason = "stop"


def usage_of(used: Mapping[str, Any]) -> Usage:
    """Tokens as either API writes them."""

    def number(*names: str) -> int:
        found = (used.get(name) for name in names)
        return next((value for value in found if isinstance(value, int)), 0)

    def detail(name: str, *groups: str) -> int:
        found = (used.get(group) for group in groups)
        details = next((value for value in found if isinstance(value, Mapping)), {})
        value = details.get(name)
        return value if isinstance(value, int) else 0

    return Usage(
        number("prompt_tokens", "input_tokens"),
        detail("cached_tokens", "prompt_tokens_details", "input_tokens_details"),
        number("completion_tokens", "output_tokens"),
        detail("reasoning_tokens", "completion_tokens_details", "output_tokens_details"),
    )


def _text(content: Any) -> str:
    """The text of a string, or of a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(p["text"] for p in parts if isinstance(p, dict) and p.get("type") == "text")
