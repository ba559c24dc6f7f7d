"""Admission: so many answers at once, so many waiting, first come first served, and the drain.

```
async with admission.slot():
    ...
```
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gptoss_serve.errors import Overloaded, RateLimited


class Admission:
    """Lets a bounded number of answers run.

    Args:
        running: most answers at once.
        waiting: most requests that may wait for their turn.
    """

    def __init__(self, *, running: int = 64, waiting: int = 256) -> None:
        self._free = asyncio.Semaphore(running)
        self._most_waiting = waiting
        self._idle = asyncio.Event()
        self._idle.set()
        self.running = 0
        self.waiting = 0
        self.draining = False

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it.

        Raises:
            Overloaded: the server is shutting down.
            RateLimited: too many wait already.
        """
        if self.draining:
            raise Overloaded("the server is shutting down; try again in a moment")
        if self._free.locked() and self.waiting >= self._most_waiting:
            raise RateLimited(f"{self.waiting} requests are waiting already; try again in a moment")
        self._idle.clear()
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
            self._note_idle()
        self.running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()
            self._note_idle()

    async def drain(self, seconds: float) -> bool:
        """Refuse new requests and wait for the others; returns whether all ended in time."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _note_idle(self) -> None:
        if self.running == 0 and self.waiting == 0:
            self._idle.set()
