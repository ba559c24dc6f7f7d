"""One tool object per session, bounded: the state of one conversation never meets another's."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from gptoss_harmony.tool import Tool


@dataclass(slots=True)
class _Session:
    tool: Tool | None = None  # made by the first call
    users: int = 0  # calls that have it or wait for it
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    """Makes, lends, keeps and forgets tools.

    Args:
        make: makes the tool of a new session.
        most: sessions kept; beyond it the one unused for longest is closed.
    """

    def __init__(self, make: Callable[[], Tool], *, most: int) -> None:
        self._make = make
        self._most = most
        self._kept: OrderedDict[str, _Session] = OrderedDict()
        self._spare: Tool | None = None

    def adopt(self, tool: Tool) -> None:
        """Use an unused tool for the next new session."""
        self._spare = tool

    @contextlib.asynccontextmanager
    async def lend(self, key: str | None) -> AsyncIterator[Tool]:
        """The session's tool, for one call at a time; None is a session of this call only."""
        if key is None:
            tool = await self._new()
            try:
                yield tool
            finally:
                await _close(tool)
            return
        session = self._kept.setdefault(key, _Session())
        self._kept.move_to_end(key)
        session.users += 1
        try:
            async with session.lock:
                # Under the lock: calls that arrive together share one tool.
                if session.tool is None:
                    session.tool = await self._new()
                yield session.tool
        finally:
            session.users -= 1
            await self._forget()

    async def _new(self) -> Tool:
        if self._spare is not None:
            tool, self._spare = self._spare, None
            return tool
        # Making a python tool starts a jail for its self-test: others need not wait.
        return await asyncio.to_thread(self._make)

    async def _forget(self) -> None:
        idle = [key for key, session in self._kept.items() if not session.users]
        # Taken out all at once: others lend and forget while a tool closes.
        excess = max(len(self._kept) - self._most, 0)
        forgotten = [self._kept.pop(key) for key in idle[:excess]]
        for session in forgotten:
            if session.tool is not None:
                await _close(session.tool)

    def close(self) -> None:
        """Close every tool: jails end, their files go. Idempotent."""
        tools = [session.tool for session in self._kept.values() if session.tool is not None]
        self._kept.clear()
        if self._spare is not None:
            tools.append(self._spare)
            self._spare = None
        for tool in tools:
            _close_now(tool)


def _close_now(tool: Tool) -> None:
    close = getattr(tool, "close", None)
    if close is not None:
        close()


async def _close(tool: Tool) -> None:
    await asyncio.to_thread(_close_now, tool)
