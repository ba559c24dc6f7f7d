"""A response that runs by itself: its task, its events so far, and any number of readers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any


class Running:
    """Reads batches of events to the end, whether or not somebody follows.

    Args:
        batches: the events; closed when cancelled.

    Attributes:
        task: ends with the response.
    """

    def __init__(self, batches: AsyncGenerator[list[dict[str, Any]], None]) -> None:
        self._batches = batches
        self._events: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._ended = False
        self.task = asyncio.create_task(self._read())

    async def follow(self, starting_after: int = -1) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Events after a sequence number, as they come."""
        position = starting_after + 1  # sequence numbers count from 0
        while True:
            async with self._changed:
                while len(self._events) <= position and not self._ended:
                    await self._changed.wait()
                batch = self._events[position:]
            if batch:
                position += len(batch)
                yield batch
            elif self._ended:
                return

    async def cancel(self) -> None:
        """Stop and wait until the last event is there. Idempotent."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([self.task])

    async def _read(self) -> None:
        try:
            async with aclosing(self._batches) as batches:
                async for batch in batches:
                    await self._add(batch)
        finally:
            self._ended = True
            await asyncio.shield(self._add([]))

    async def _add(self, batch: list[dict[str, Any]]) -> None:
        async with self._changed:
            self._events += batch
            self._changed.notify_all()
