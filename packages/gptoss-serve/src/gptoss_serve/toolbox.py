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
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from gptoss_harmony import Tool
from gptoss_serve.errors import InvalidRequest, NotFound


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


class Keeping(Protocol):
    """Keeps what tools hold from one response to the next; `Containers` does."""

    def resolve(self, asked: str | None, hints: Iterable[str], *, owner: str = "") -> str:
        """The id of a container."""
        ...

    def hold(self, container_id: str, response_id: str) -> None:
        """A kept response refers to it."""
        ...

    def release(self, response_id: str) -> None:
        """That response is gone."""
        ...

    def expire(self) -> int:
        """Forget what nobody used for long."""
        ...

    def close(self) -> None:
        """Forget everything."""
        ...


# Makes the tool of one conversation.
ToolMaker = Callable[[ToolSetup], Tool]


class Toolbox:
    """Makes and closes tools.

    Args:
        makers: by tool name.
        offline: names of the tools that ask nobody outside.
        containers: where the code of `python` runs and its files are kept; None keeps nothing
            after a response.
    """

    def __init__(
        self,
        makers: Mapping[str, ToolMaker] | None = None,
        *,
        offline: Collection[str] = (),
        containers: Keeping | None = None,
    ) -> None:
        self._makers = dict(makers or {})
        self._offline = frozenset(offline)
        self._containers = containers

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    @property
    def names(self) -> list[str]:
        """The tools that can be had."""
        return sorted(self._makers)

    def is_offline(self, name: str) -> bool:
        """Whether a tool asks nobody outside."""
        return name in self._offline

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

    def container(self, asked: str | None, hints: Iterable[str], *, owner: str = "") -> str:
        """The id of the container that a response's code runs in.

        Args:
            asked: the one that the client insists on.
            hints: those that the conversation used, the best first.
            owner: whose it must be.

        Raises:
            NotFound: there is no such container.
        """
        if self._containers is not None:
            return self._containers.resolve(asked, hints, owner=owner)
        if asked is not None:
            raise NotFound(
                f"there is no container {asked!r}; this server keeps none",
                param="tools",
                code="container_not_found",
            )
        return f"cntr_{uuid.uuid4().hex}"

    def hold(self, response_id: str, states: Mapping[str, Any]) -> None:
        """Note that a kept response refers to what its tools hold."""
        container_id = states.get("python", {}).get("container")
        if self._containers is not None and container_id is not None:
            self._containers.hold(container_id, response_id)

    def release(self, response_id: str) -> None:
        """A kept response is gone, and with it what only it referred to."""
        if self._containers is not None:
            self._containers.release(response_id)

    async def keep_tidy(self, seconds: float = 15.0) -> None:
        """Forget what nobody uses, now and then, until cancelled; then everything."""
        try:
            while True:
                await asyncio.sleep(seconds)
                if self._containers is not None:
                    await asyncio.to_thread(self._containers.expire)
        finally:
            if self._containers is not None:
                self._containers.close()

    async def close(self, tools: Sequence[Tool]) -> None:
        """Give back what the tools hold."""
        for tool in tools:
            close = getattr(tool, "close", None)
            if close is not None:
                await asyncio.to_thread(close)


def tool_states(tools: Sequence[Tool]) -> dict[str, Any]:
    """What the tools of a conversation must remember for its next turn, as plain data."""
    return {tool.name: tool.get_tool_state() for tool in tools if hasattr(tool, "get_tool_state")}
