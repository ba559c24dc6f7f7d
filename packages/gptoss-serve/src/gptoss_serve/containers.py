"""Python sessions that outlive a response: the files and, in a stateful tool, the variables.

```
containers = Containers(lambda: PythonTool(stateful=True), seconds=1200.0, most=32)
toolbox = Toolbox({"python": containers.open}, containers=containers)
```

A container is known by an id that only the responses that used it tell, and where clients have keys
it is of no use to another key. It goes when nobody used
it for a while, when there are too many, when the last kept response that used it is deleted, and
with the server. Nothing is started before the first call.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gptoss_harmony import Message, Tool, ToolNamespaceConfig
from gptoss_harmony.errors import HarmonyError
from gptoss_harmony.tool import ToolReply
from gptoss_serve.errors import NotFound
from gptoss_serve.toolbox import ToolSetup
from gptoss_tools.reply import answer


class Closing(Tool, Protocol):
    """A tool that holds something."""

    def close(self) -> None:
        """Give it back."""
        ...


@dataclass(slots=True)
class _Container:
    tool: Closing
    owner: str
    users: int = 0
    last_used: float = 0.0
    holders: set[str] = field(default_factory=set)  # ids of kept responses
    is_released: bool = False


class Containers:
    """Makes, keeps and forgets the tools behind `code_interpreter`.

    Args:
        make: makes a tool with files of its own.
        seconds: how long an unused one is kept.
        most: how many are kept; beyond it the one unused for longest goes.
        clock: seconds, from any origin.

    Attributes:
        tool_config: what the model is told of each of them.

    Raises:
        HarmonyError: a tool cannot be made here.
    """

    def __init__(
        self,
        make: Callable[[], Closing],
        *,
        seconds: float = 1200.0,
        most: int = 32,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Container] = {}
        first = make()  # a jail that cannot be built is said at once
        self.tool_config = first.tool_config
        first.close()

    def __len__(self) -> int:
        return len(self._kept)

    def open(self, setup: ToolSetup) -> Tool:
        """The tool of one response; `setup.state` names its container, or it has a private one."""
        state = setup.state or {}
        return ContainerTool(self, state.get("container"), owner=state.get("owner", ""))

    def resolve(self, asked: str | None, hints: Iterable[str], *, owner: str = "") -> str:
        """The id of a container for a response.

        Args:
            asked: the one that the client insists on.
            hints: those that the conversation used, the best first.
            owner: whose it must be.

        Raises:
            NotFound: the one that was asked for is gone, or never was.
        """
        with self._lock:
            own = [key for key, container in self._kept.items() if container.owner == owner]
            if asked is not None and asked not in own:
                raise NotFound(
                    f"there is no container {asked!r}; it may have expired: ask for "
                    '{"type": "auto"}',
                    param="tools",
                    code="container_not_found",
                )
            known = [hint for hint in hints if hint in own]
        return asked or (known[0] if known else f"cntr_{secrets.token_hex(20)}")

    def borrow(self, container_id: str | None, *, owner: str = "") -> Closing:
        """The tool of a container, made if there is none; `give_back` it."""
        with self._lock:
            container = self._kept.get(container_id or "")
            if container is not None:
                container.users += 1
                return container.tool
        tool = self._make()
        if container_id is None:
            return tool
        with self._lock:
            # Two responses of one conversation may have asked at once: one tool is enough.
            container = self._kept.setdefault(container_id, _Container(tool, owner))
            container.users += 1
            spare = tool if container.tool is not tool else None
        if spare is not None:
            spare.close()
        return container.tool

    def give_back(self, container_id: str) -> None:
        """End a use; too many and released containers go now."""
        with self._lock:
            container = self._kept.get(container_id)
            if container is None:  # the server ends
                return
            container.users -= 1
            container.last_used = self._clock()
            idle = [key for key, each in self._kept.items() if not each.users]
            idle.sort(key=lambda key: self._kept[key].last_used)
            gone = idle[: max(0, len(self._kept) - self._most)]
            gone += [key for key in idle if self._kept[key].is_released and key not in gone]
        self._forget(gone)

    def hold(self, container_id: str, response_id: str) -> None:
        """Note that a kept response used a container."""
        with self._lock:
            container = self._kept.get(container_id)
            if container is not None:
                container.holders.add(response_id)
                container.is_released = False

    def release(self, response_id: str) -> None:
        """A response was deleted: containers that only it used go."""
        with self._lock:
            touched = {k: c for k, c in self._kept.items() if response_id in c.holders}
            for container in touched.values():
                container.holders.discard(response_id)
                container.is_released = not container.holders
            gone = [k for k, c in touched.items() if c.is_released and not c.users]
        self._forget(gone)

    def expire(self) -> int:
        """Forget what nobody used for long; returns how many."""
        with self._lock:
            latest = self._clock() - self._seconds
            gone = [k for k, c in self._kept.items() if not c.users and c.last_used <= latest]
        self._forget(gone)
        return len(gone)

    def close(self) -> None:
        """Forget everything. Idempotent."""
        self._forget(list(self._kept))

    def _forget(self, keys: Iterable[str]) -> None:
        with self._lock:
            gone = [self._kept.pop(key) for key in keys if key in self._kept]
        for container in gone:
            container.tool.close()


class ContainerTool:
    """The python of one response, in a container that may live on.

    Args:
        containers: where it comes from.
        container_id: None is a container that ends with this object.
        owner: who may use the container.
    """

    def __init__(
        self, containers: Containers, container_id: str | None, *, owner: str = ""
    ) -> None:
        self._containers = containers
        self._id = container_id
        self._owner = owner
        self._tool: Closing | None = None

    @property
    def name(self) -> str:
        """`python`."""
        return "python"

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        """The tool's own."""
        return self._containers.tool_config

    def instruction(self) -> str:
        """Nothing beyond the namespace."""
        return ""

    def get_tool_state(self) -> Mapping[str, Any]:
        """The container's id, for the next response of the conversation."""
        return {} if self._id is None else {"container": self._id}

    def process(self, message: Message) -> ToolReply:
        """Run the code of a call; a container that cannot be made is said to the model."""

        async def reply() -> AsyncGenerator[Message, None]:
            try:
                if self._tool is None:
                    # Starts a jail for its self-test: others need not wait.
                    self._tool = await asyncio.to_thread(
                        self._containers.borrow, self._id, owner=self._owner
                    )
            except (HarmonyError, OSError) as error:
                yield answer(message, f"[ERROR] {error}", name=self.name)
                return
            async for said in self._tool.process(message):
                yield said

        return ToolReply(reply())

    def close(self) -> None:
        """Give the container back, or end it. Idempotent."""
        tool, self._tool = self._tool, None
        if tool is None:
            return
        if self._id is None:
            tool.close()
        else:
            self._containers.give_back(self._id)
