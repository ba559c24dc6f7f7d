"""Events of a turn -> events of the Responses API, and the response object they add up to.

```
writer = ResponseWriter(response, plan, style)
events = writer.begin()
events += writer.write(event)          # for each event of the session
writer.response                        # the object, final once a TurnDone was written
```

The order is `created`, `in_progress`, then per item `added`, its deltas, `done`, and at last one
of `completed`, `incomplete`, `failed`. An item keeps its index and id for life; every event has
the next sequence number.
"""

from __future__ import annotations

import copy
import time
from typing import Any

from gptoss_serve.errors import ServeError
from gptoss_serve.events import (
    Event,
    Mended,
    PartDelta,
    PartDone,
    PartStarted,
    ServerAsked,
    ServerListed,
    ToolAnswered,
    TurnDone,
    Usage,
)
from gptoss_serve.responses.item_kinds import new_item
from gptoss_serve.responses.parts import Item, ItemStyle, Json
from gptoss_serve.responses.tool_parts import McpListItem
from gptoss_serve.responses.tools import ToolPlan

_QUEUED = ("created", "queued")


class ResponseWriter:
    """Writes one response.

    Args:
        response: the object as `new_response` made it; it is changed in place.
        plan: the request's tools.
        style: how items look.

    Attributes:
        response: the object so far.
    """

    def __init__(self, response: Json, plan: ToolPlan, style: ItemStyle) -> None:
        self.response = response
        self._plan = plan
        self._style = style
        self._sequence = 0
        self._items: dict[int, Item] = {}  # of parts that are not over
        self._listing: dict[str, McpListItem] = {}
        self._next_index = 0
        self._ended = False
        self._text: list[str] = []  # of the part being written

    def queue(self) -> list[Json]:
        """The first events of a response that waits for its turn."""
        self.response["status"] = "queued"
        return self._numbered([self._snapshot(f"response.{name}") for name in _QUEUED])

    def begin(self) -> list[Json]:
        """The first events, or the next where it was queued."""
        self.response["status"] = "in_progress"
        names = ("in_progress",) if self._sequence else ("created", "in_progress")
        return self._numbered([self._snapshot(f"response.{name}") for name in names])

    def write(self, event: Event) -> list[Json]:
        """What one event of the session comes to."""
        if isinstance(event, TurnDone):
            return self._numbered(self._finish(event))
        if isinstance(event, ServerAsked | ServerListed):
            return self._numbered(self._list_tools(event))
        if isinstance(event, PartStarted):
            self._text.clear()
            item = new_item(event, self._plan, self._style, next_index=self._take_index)
            self._items[event.index] = item
            return self._numbered(item.open())
        return self._numbered(self._change(event))

    def fail(self, error: ServeError) -> list[Json]:
        """The end of a response that could not be finished."""
        first = self._before_other_end()
        self.response["error"] = {"code": _failure_code(error), "message": str(error)}
        return [*first, *self._numbered(self._end("failed", "failed"))]

    def cancel(self) -> list[Json]:
        """The end of a response that somebody stopped."""
        first = self._before_other_end()
        return [*first, *self._numbered(self._end("cancelled", "incomplete"))]

    def _before_other_end(self) -> list[Json]:
        """Begin if need be; take back an end that was written but never sent."""
        if self._ended:
            self._sequence -= 1
            self.response |= {"completed_at": None, "incomplete_details": None}
        return [] if self._sequence else self.begin()

    def _change(self, event: PartDelta | PartDone | ToolAnswered | Mended) -> list[Json]:
        if isinstance(event, Mended):
            return []
        item = self._items.get(event.index)
        if item is None:
            return []
        if isinstance(event, PartDelta):
            self._text.append(event.text)
            return item.grow(event)
        if isinstance(event, ToolAnswered):
            del self._items[event.index]
            return item.answer(event)
        events = item.close(event)
        self.response["output"] += item.items
        # A builtin tool's item stays open until the tool has answered.
        if any(line["type"] == "response.output_item.done" for line in events):
            del self._items[event.index]
        return events

    def _list_tools(self, event: ServerAsked | ServerListed) -> list[Json]:
        if isinstance(event, ServerAsked):
            self._listing[event.label] = McpListItem(self._take_index(), event.label)
            return self._listing[event.label].open()
        item = self._listing.pop(event.label)
        self.response["output"] += item.items
        return item.listed(event.tools, event.error)

    def _take_index(self) -> int:
        index, self._next_index = self._next_index, self._next_index + 1
        return index

    def _finish(self, done: TurnDone) -> list[Json]:
        self.response["usage"] = usage_object(done.usage)
        if done.reason in ("length", "time"):
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
            return self._end("incomplete", "incomplete")
        if done.reason == "cancelled":
            return self._end("cancelled", "incomplete")
        self.response["completed_at"] = int(time.time())
        return self._end("completed", "completed")

    def _end(self, status: str, event: str) -> list[Json]:
        """Close what is open, then the response."""
        events: list[Json] = []
        for label in list(self._listing):
            events += self._list_tools(ServerListed(label, error="the server was not waited for"))
        for index, item in list(self._items.items()):
            if item.item in self.response["output"]:  # a tool that was never run
                events.append(item.done(complete=False))
            else:
                cut = PartDone(index, "answer", None, "".join(self._text), False)
                events += item.close(cut)
                self.response["output"] += item.items
        self._items.clear()
        self._ended = True
        self.response["status"] = status
        return [*events, self._snapshot(f"response.{event}")]

    def _snapshot(self, kind: str) -> Json:
        return {"type": kind, "response": copy.deepcopy(self.response)}

    def _numbered(self, events: list[Json]) -> list[Json]:
        for event in events:
            event["sequence_number"] = self._sequence
            self._sequence += 1
        return events


def usage_object(usage: Usage) -> Json:
    """Tokens as the Responses API writes them."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _failure_code(error: ServeError) -> str:
    known: dict[Any, str] = {429: "rate_limit_exceeded"}
    if error.code == "context_length_exceeded":
        return error.code
    return known.get(error.status) or ("invalid_prompt" if error.status == 400 else "server_error")
