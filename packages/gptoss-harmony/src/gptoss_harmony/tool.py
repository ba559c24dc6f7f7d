"""The tool contract: a message that calls it in, messages that answer out.

```
reply = tool.process(call)          # `call` is the assistant's message, recipient `browser.open`
messages = await reply              # all at once, or
async for message in tool.process(call): ...   # as they come
```
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import Any, Protocol, runtime_checkable

from openai_harmony import Message, ToolNamespaceConfig


class ToolReply:
    """The answer of a tool, for `await` (a list) or `async for` (as the messages come).

    A reply can be consumed once.
    """

    def __init__(self, messages: AsyncIterator[Message]) -> None:
        self._messages = messages

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._messages

    def __await__(self) -> Generator[Any, None, list[Message]]:
        return self._collect().__await__()

    async def _collect(self) -> list[Message]:
        return [message async for message in self._messages]


@runtime_checkable
class Tool(Protocol):
    """Something a model can call. One object serves one conversation."""

    @property
    def name(self) -> str:
        """The namespace, which is also the recipient (or its part before the first dot)."""
        ...

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        """What the system or developer message tells the model about the tool."""
        ...

    def instruction(self) -> str:
        """Text for the developer message, or an empty string."""
        ...

    def process(self, message: Message) -> ToolReply:
        """Run one call. Bad arguments and failures come back as messages, never as exceptions."""
        ...
