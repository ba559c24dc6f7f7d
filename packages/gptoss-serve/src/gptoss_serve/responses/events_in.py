"""Events of the Responses API -> events of a turn: what a client of any server reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gptoss_serve.errors import UpstreamError
from gptoss_serve.events import (
    Citation,
    Event,
    PartDelta,
    PartDone,
    PartKind,
    PartStarted,
    ServerAsked,
    ServerListed,
    TurnDone,
    TurnEnd,
    Usage,
)

# What the client has to answer before the model goes on.
_CALLS = (
    "function_call",
    "custom_tool_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "mcp_approval_request",
)
_DELTAS = (
    "output_text",
    "refusal",
    "reasoning_text",
    "reasoning",
    "reasoning_summary_text",
    "function_call_arguments",
    "custom_tool_call_input",
    "code_interpreter_call_code",
    "mcp_call_arguments",
)


# Where an item that has no deltas says what it asks for.
_BODIES = {
    "web_search_call": "action",
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
}


class EventReader:
    """Reads the events of one response.

    Attributes:
        response: the final object, once it came.
    """

    def __init__(self) -> None:
        self.response: dict[str, Any] | None = None
        self._kinds: dict[int, PartKind] = {}
        self._texts: dict[int, list[str]] = {}
        self._has_text: set[int] = set()  # reasoning whose summary would only repeat it

    def read(self, wire: dict[str, Any]) -> Iterator[Event]:
        """Take one event.

        Raises:
            UpstreamError: the server says that it failed.
        """
        kind = wire.get("type", "")
        if kind == "response.output_item.added":
            yield self._start(wire)
        elif kind == "response.output_item.done":
            yield from self._late(wire)
            yield self._done(wire)
        elif kind.endswith(".delta"):
            yield from self._delta(wire, kind.removeprefix("response.").removesuffix(".delta"))
        elif kind == "response.output_text.annotation.added":
            yield from self._citation(wire)
        elif kind in ("response.completed", "response.incomplete"):
            self.response = wire["response"]
            yield _turn_done(wire["response"])
        elif kind in ("response.failed", "error"):
            error = (wire.get("response") or {}).get("error") or wire.get("error") or wire
            raise UpstreamError(str(error.get("message")), code=error.get("code"))

    def _start(self, wire: dict[str, Any]) -> PartStarted | ServerAsked:
        index, item = wire["output_index"], wire["item"]
        if item["type"] == "mcp_list_tools":
            return ServerAsked(item["server_label"])
        part = self._kinds[index] = _kind(item)
        self._texts[index] = []
        return PartStarted(index, part, item.get("name") or _tool_name(item))

    def _delta(self, wire: dict[str, Any], name: str) -> Iterator[Event]:
        index = wire["output_index"]
        if name not in _DELTAS or index not in self._kinds:
            return  # the text of an item that nobody announced comes with its end
        if name == "reasoning_summary_text":
            if index in self._has_text:
                return
        else:
            self._has_text.add(index)
        self._texts[index].append(wire["delta"])
        yield PartDelta(index, self._kinds[index], wire["delta"])

    def _citation(self, wire: dict[str, Any]) -> Iterator[Event]:
        note, index = wire["annotation"], wire["output_index"]
        if note.get("type") == "url_citation" and index in self._kinds:
            link = Citation(note["start_index"], note["end_index"], note["title"], note["url"])
            yield PartDelta(index, self._kinds[index], "", citations=(link,))

    def _late(self, wire: dict[str, Any]) -> Iterator[Event]:
        """What was missing before the end of an item: its beginning, its text."""
        index, item = wire["output_index"], wire["item"]
        if item["type"] == "mcp_list_tools":
            return
        if index not in self._kinds:
            yield self._start(wire)
        text = _text_of(item)
        if text and not self._texts[index]:
            self._texts[index].append(text)
            yield PartDelta(index, self._kinds[index], text)

    def _done(self, wire: dict[str, Any]) -> PartDone | ServerListed:
        index, item = wire["output_index"], wire["item"]
        if item["type"] == "mcp_list_tools":
            return ServerListed(item["server_label"], tuple(item["tools"]), item.get("error"))
        text = "".join(self._texts.get(index, []))
        if item["type"] in _BODIES:
            text = json.dumps(item.get(_BODIES[item["type"]]))
        elif item["type"] == "mcp_approval_request":
            text = item["arguments"]
        complete = item.get("status") not in ("incomplete", "failed")
        name = item.get("name") or _tool_name(item)
        return PartDone(index, self._kinds[index], name, text, complete)


def _text_of(item: dict[str, Any]) -> str:
    """The text of an item whose text has deltas."""
    match item["type"]:
        case "message" | "reasoning":
            parts = item.get("content") or item.get("summary") or []
            return "".join(part.get("text") or part.get("refusal") or "" for part in parts)
        case "function_call" | "mcp_call":
            return str(item.get("arguments") or "")
        case "custom_tool_call":
            return str(item.get("input") or "")
        case "code_interpreter_call":
            return str(item.get("code") or "")
    return ""


def _kind(item: dict[str, Any]) -> PartKind:
    match item["type"]:
        case "reasoning":
            return "reasoning"
        case "message":
            return "preamble" if item.get("phase") == "commentary" else "answer"
    return "call" if item["type"] in _CALLS else "builtin"


def _tool_name(item: dict[str, Any]) -> str | None:
    return {"web_search_call": "browser", "code_interpreter_call": "python"}.get(item["type"])


def _turn_done(response: dict[str, Any]) -> TurnDone:
    used = response.get("usage") or {}
    usage = Usage(
        used.get("input_tokens", 0),
        (used.get("input_tokens_details") or {}).get("cached_tokens", 0),
        used.get("output_tokens", 0),
        (used.get("output_tokens_details") or {}).get("reasoning_tokens", 0),
    )
    reason: TurnEnd = "stop"
    if response["status"] == "incomplete":
        reason = "length"
    elif response["status"] == "cancelled":
        reason = "cancelled"
    elif any(item["type"] in _CALLS for item in response["output"]):
        reason = "call"
    return TurnDone(reason, usage)
