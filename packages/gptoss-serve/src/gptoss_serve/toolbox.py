"""The tools that run here, made anew for each conversation.

```
toolbox = Toolbox({"browser": lambda: SimpleBrowserTool(CorpusBackend("docs.db"))})
tools = await toolbox.open(["browser"])
...
await toolbox.close(tools)
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from gptoss_harmony import Tool
from gptoss_serve.errors import InvalidRequest


@runtime_checkable
class Reporting(Protocol):
    """A tool that tells programs more about its last call than it tells the model."""

    def report(self) -> Mapping[str, Any]:
        """What is known; `failed` is true where the call came to nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSetup:
    """What a tool is made with.

    Attributes:
        state: what an earlier turn left, or None.
        options: what the client asks of the tool.
    """

    state: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


# Makes the tool of one conversation.
ToolMaker = Callable[[ToolSetup], Tool]


class Toolbox:
    """Makes and closes tools.

    Args:
        makers: by tool name.
    """

    def __init__(self, makers: Mapping[str, ToolMaker] | None = None) -> None:
        self._makers = dict(makers or {})

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    @property
    def names(self) -> list[str]:
        """The tools that can be had."""
        return sorted(self._makers)

    async def open(
        self,
        names: Iterable[str],
        *,
        states: Mapping[str, Mapping[str, Any]] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> list[Tool]:
        """Make tools for a conversation.

        Args:
            names: of the tools.
            states: what `tool_states` gave before, by tool name.
            options: what the client asks of them, by tool name.

        Raises:
            InvalidRequest: a tool that is not in the box.
            HarmonyError: a tool that cannot be made here.
        """
        tools: list[Tool] = []
        for name in names:
            if name not in self._makers:
                known = ", ".join(self.names) or "none"
                raise InvalidRequest(f"there is no tool {name!r} here; there are: {known}")
            # Making a python tool starts a jail for its self-test: others need not wait.
            setup = ToolSetup(state=(states or {}).get(name), options=(options or {}).get(name, {}))
            tools.append(await asyncio.to_thread(self._makers[name], setup))
        return tools

    async def close(self, tools: Sequence[Tool]) -> None:
        """Give back what the tools hold."""
        for tool in tools:
            close = getattr(tool, "close", None)
            if close is not None:
                await asyncio.to_thread(close)


def tool_states(tools: Sequence[Tool]) -> dict[str, Any]:
    """What the tools of a conversation must remember for its next turn, as plain data."""
    return {tool.name: tool.get_tool_state() for tool in tools if hasattr(tool, "get_tool_state")}
