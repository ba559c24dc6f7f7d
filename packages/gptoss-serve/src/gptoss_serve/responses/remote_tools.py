"""The tools of a response's MCP servers: asked for before the model begins, called in its turn.

```
remote = RemoteTools(plan, access, seconds=60.0, known={})
async for event in remote.list():      # ServerAsked, ServerListed; nothing for what is known
    ...
remote.tools                           # for the turn
await remote.close()
```
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from gptoss_harmony import Tool
from gptoss_harmony.errors import ConversationError
from gptoss_harmony.schema_complete import complete_typescript
from gptoss_serve.events import ServerAsked, ServerListed
from gptoss_serve.mcp_client.access import McpAccess
from gptoss_serve.mcp_client.connection import McpConnection
from gptoss_serve.mcp_client.failure import McpFailure
from gptoss_serve.mcp_client.tool import McpTool
from gptoss_serve.responses.mcp_asked import McpAsked
from gptoss_serve.responses.tool_choice import choose
from gptoss_serve.responses.tool_plan import ToolPlan

Listing = Sequence[Mapping[str, Any]]


class RemoteTools:
    """What one response has of remote servers.

    Args:
        plan: the request's tools; the servers' functions are added to it.
        access: what the operator allows.
        seconds: longest wait for any one answer of a server.
        known: listings by label, from items that the client sent back.
        kept: what `state` gave for the response before.
    """

    def __init__(
        self,
        plan: ToolPlan,
        access: McpAccess,
        *,
        seconds: float,
        known: Mapping[str, Listing],
        kept: Mapping[str, Any],
    ) -> None:
        self._plan = plan
        self._connections = {
            label: McpConnection(asked.server, access, seconds=seconds)
            for label, asked in plan.mcp.items()
        }
        self._known = known
        self._kept = kept
        self._state: dict[str, Any] = {}
        self.tools: list[Tool] = []

    @property
    def state(self) -> Mapping[str, Any]:
        """The listings, for the next response of the conversation."""
        return self._state

    async def list(self) -> AsyncGenerator[ServerAsked | ServerListed, None]:
        """Ask the servers that are not known yet, then settle what must be called.

        Raises:
            InvalidRequest: the choice names a tool that no server has.
        """
        for label, asked in self._plan.mcp.items():
            listing = self._remembered(label, asked)
            if listing is None:
                yield ServerAsked(label)
                told = await self._ask(label, asked)
                yield told
                if told.error is not None:
                    continue
                listing = told.tools
            self._state[label] = {"key": asked.key, "tools": [dict(tool) for tool in listing]}
            self._add(label, asked, listing)
        if self._plan.mcp:
            choose(self._plan, self._plan.wire_choice)
            self.tools = [tool for tool in self.tools if tool.name in self._plan.functions]

    async def close(self) -> None:
        """End the connections."""
        for connection in self._connections.values():
            await connection.close()

    def _remembered(self, label: str, asked: McpAsked) -> Listing | None:
        if label in self._known:
            return [tool for tool in self._known[label] if asked.shows(tool)]
        kept = self._kept.get(label)
        return kept["tools"] if kept is not None and kept["key"] == asked.key else None

    async def _ask(self, label: str, asked: McpAsked) -> ServerListed:
        try:
            listed = await self._connections[label].list_tools()
        except McpFailure as failure:
            return ServerListed(label, error=str(failure))
        return ServerListed(label, tuple(tool for tool in listed if asked.shows(tool)))

    def _add(self, label: str, asked: McpAsked, listing: Listing) -> None:
        for tool in {tool["name"]: tool for tool in listing}.values():
            function = self._plan.functions.add(
                tool["name"],
                namespace=label,
                kind="mcp",
                description=str(tool.get("description") or ""),
                parameters=_readable(tool.get("input_schema")),
                runs_here=not asked.asks(tool),
            )
            self.tools.append(McpTool(function, self._connections[label]))


def _readable(schema: Any) -> Mapping[str, Any] | None:
    """A server's schema, if it can be shown to the model; a broken one spoils no response."""
    if not isinstance(schema, Mapping):
        return None
    try:
        complete_typescript(schema)
    except (ConversationError, RecursionError):
        return None
    return schema
