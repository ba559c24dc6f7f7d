"""Calls of tools that run here, as items with their events: web search, code, remote tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gptoss_serve.events import PartDelta, PartDone, ToolAnswered
from gptoss_serve.functions import ClientFunction
from gptoss_serve.responses.parts import Item, ItemStyle, Json, new_id


class WebSearchItem(Item):
    """A call of our browser: known, and shown, once its arguments are whole."""

    def __init__(self, index: int, name: str, style: ItemStyle) -> None:
        item = {"id": new_id("ws"), "type": "web_search_call", "status": "in_progress"}
        super().__init__(index, item)
        self._name = name
        self._with_sources = "web_search_call.action.sources" in style.include

    def open(self) -> list[Json]:
        """Nothing yet: an item must say what it searches for."""
        return []

    def grow(self, delta: PartDelta) -> list[Json]:
        """Nothing: there is no event for half a query."""
        return []

    def close(self, done: PartDone) -> list[Json]:
        """Begin; or begin and fail, where the call was cut short."""
        self.item["action"] = browser_action(self._name, done.text)
        events = [self.added(), self.event("web_search_call.in_progress")]
        if done.complete:
            self.item["status"] = "searching"
            return [*events, self.event("web_search_call.searching")]
        return [*events, self._end("failed")]

    def answer(self, answered: ToolAnswered) -> list[Json]:
        """The page is there, and with it its address."""
        action, url = self.item["action"], answered.report.get("url")
        if url and action["type"] in ("open_page", "find_in_page"):
            action["url"] = url
        if action["type"] == "search" and self._with_sources:
            found = answered.report.get("sources", ())
            action["sources"] = [{"type": "url", "url": url} for url in found]
        if answered.failed:
            return [self._end("failed")]
        return [self.event("web_search_call.completed"), self._end("completed")]

    def _end(self, status: str) -> Json:
        self.item["status"] = status
        return self.finished()


class CodeItem(Item):
    """A call of our python."""

    def __init__(self, index: int, style: ItemStyle) -> None:
        item = {"id": new_id("ci"), "type": "code_interpreter_call", "status": "in_progress"}
        more = {"code": "", "container_id": style.container_id, "outputs": None}
        super().__init__(index, {**item, **more})
        self._with_outputs = "code_interpreter_call.outputs" in style.include

    def open(self) -> list[Json]:
        """Item and state."""
        return [self.added(), self.event("code_interpreter_call.in_progress")]

    def grow(self, delta: PartDelta) -> list[Json]:
        """More code."""
        return [self.event("code_interpreter_call_code.delta", delta=delta.text)]

    def close(self, done: PartDone) -> list[Json]:
        """The code is whole and runs; or it was cut short."""
        self.item["code"] = done.text
        events = [self.event("code_interpreter_call_code.done", code=done.text)]
        if done.complete:
            self.item["status"] = "interpreting"
            return [*events, self.event("code_interpreter_call.interpreting")]
        return [*events, self.done(complete=False)]

    def answer(self, answered: ToolAnswered) -> list[Json]:
        """The output is there."""
        if self._with_outputs:
            self.item["outputs"] = [{"type": "logs", "logs": answered.text}]
        if answered.failed:
            self.item["status"] = "failed"
            return [self.finished()]
        return [self.event("code_interpreter_call.completed"), self.done(complete=True)]


class McpCallItem(Item):
    """A call of a tool of a remote MCP server.

    Args:
        index: of the item.
        function: the tool.
        approval: the id of the request that a user approved, or None.
    """

    def __init__(self, index: int, function: ClientFunction, *, approval: str | None) -> None:
        item = {"id": new_id("mcp"), "type": "mcp_call", "status": "in_progress"}
        more = {"server_label": function.namespace, "name": function.name, "arguments": ""}
        result = {"output": None, "error": None, "approval_request_id": approval}
        super().__init__(index, {**item, **more, **result})

    def open(self) -> list[Json]:
        """Item and state."""
        return [self.added(), self.event("mcp_call.in_progress")]

    def grow(self, delta: PartDelta) -> list[Json]:
        """More arguments."""
        return [self.event("mcp_call_arguments.delta", delta=delta.text)]

    def close(self, done: PartDone) -> list[Json]:
        """The arguments are whole and the call is made; or they were cut short."""
        self.item["arguments"] = done.text
        events = [self.event("mcp_call_arguments.done", arguments=done.text)]
        if done.complete:
            self.item["status"] = "calling"
            return events
        return [*events, self.done(complete=False)]

    def answer(self, answered: ToolAnswered) -> list[Json]:
        """The server has answered, or has not."""
        if not answered.failed:
            self.item["output"] = answered.text
            return [self.event("mcp_call.completed"), self.done(complete=True)]
        unknown = {"type": "mcp_protocol_error", "code": 0, "message": answered.text}
        self.item["error"] = answered.report.get("error") or unknown
        self.item["status"] = "failed"
        return [self.event("mcp_call.failed"), self.finished()]


class McpListItem(Item):
    """The tools of a remote MCP server, which are asked for before the model begins."""

    def __init__(self, index: int, label: str) -> None:
        item = {"id": new_id("mcpl"), "type": "mcp_list_tools", "server_label": label}
        super().__init__(index, {**item, "tools": [], "error": None})

    def open(self) -> list[Json]:
        """Item and state."""
        return [self.added(), self.event("mcp_list_tools.in_progress")]

    def listed(self, tools: Sequence[Mapping[str, Any]], error: str | None) -> list[Json]:
        """The server has told, or has not."""
        self.item["tools"] = [dict(tool) for tool in tools]
        self.item["error"] = error
        word = "completed" if error is None else "failed"
        return [self.event(f"mcp_list_tools.{word}"), self.finished()]


def browser_action(name: str, arguments: str) -> Json:
    """What a browser call does, as the Responses API writes it; unreadable arguments are kept."""
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        given = {"query": arguments}
    pattern, query = str(given.get("pattern") or ""), str(given.get("query") or "")
    match name.partition(".")[2]:
        case "open":
            target = given.get("id")
            return {"type": "open_page", "url": target if isinstance(target, str) else None}
        case "find":
            return {"type": "find_in_page", "pattern": pattern, "url": ""}
    return {"type": "search", "query": query, "queries": [query]}
