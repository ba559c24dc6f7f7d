"""Responses that run by themselves: their tasks, their events so far, and any number of readers.

```
running = background.start(answering)
async for batch in running.follow(starting_after=7):
    ...
await background.cancel(response_id)
```
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from gptoss_serve.responses.store import ResponseStore

_log = logging.getLogger("gptoss_serve")
LEASE_SECONDS = 30.0
_BEAT_SECONDS = 1.0

Json = dict[str, Any]


class Running:
    """Reads batches of events to the end, whether or not somebody follows.

    Args:
        response: the object, which changes as it is made.
        batches: the events; cancelled by `cancel`.

    Attributes:
        response: as given.
        task: ends with the response.
    """

    def __init__(self, response: Json, batches: AsyncGenerator[list[Json], None]) -> None:
        self.response = response
        self._batches = batches
        self._events: list[Json] = []
        self._changed = asyncio.Event()  # replaced at every change
        self._begun = asyncio.Event()
        self._ended = False
        self.task = asyncio.create_task(self._read())

    async def follow(self, starting_after: int = -1) -> AsyncGenerator[list[Json], None]:
        """Events after a sequence number, as they come."""
        position = starting_after + 1  # sequence numbers count from 0
        while True:
            changed = self._changed
            batch = self._events[position:]
            if batch:
                position += len(batch)
                yield batch
            elif self._ended:
                return
            else:
                await changed.wait()

    async def cancel(self) -> None:
        """Stop and wait until the last event is there. Idempotent."""
        await self._begun.wait()  # a task that never began could not write its last event
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([self.task])

    async def _read(self) -> None:
        self._begun.set()
        try:
            async with aclosing(self._batches) as batches:
                async for batch in batches:
                    self._events += batch
                    self._tell()
        finally:
            self._ended = True
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Background:
    """All responses that this server makes in the background.

    Args:
        store: holds their leases; other servers ask through it to stop them.
    """

    def __init__(self, store: ResponseStore | None) -> None:
        self._store = store
        self._running: dict[str, Running] = {}
        self._beat: asyncio.Task[None] | None = None

    def start(self, response: Json, batches: AsyncGenerator[list[Json], None]) -> Running:
        """Make a response whose record is in the store already."""
        response_id = response["id"]
        running = self._running[response_id] = Running(response, batches)
        running.task.add_done_callback(lambda _: self._running.pop(response_id, None))
        if self._beat is None or self._beat.done():
            self._beat = asyncio.create_task(self._keep_leases())
        return running

    def find(self, response_id: str) -> Running | None:
        """A response that runs here."""
        return self._running.get(response_id)

    async def cancel(self, response_id: str) -> bool:
        """Stop a response that runs here; returns whether there was one."""
        running = self._running.get(response_id)
        if running is not None:
            await running.cancel()
        return running is not None

    async def close(self) -> None:
        """Stop everything."""
        for running in list(self._running.values()):
            await running.cancel()
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.wait([self._beat])

    async def _keep_leases(self) -> None:
        """Renew the leases while anything runs, and stop what shall be stopped."""
        while self._running and self._store is not None:
            try:
                unwanted = await self._store.renew(list(self._running), lease=LEASE_SECONDS)
            except Exception as error:  # a file that is locked for long; the lease bears a while
                _log.warning("cannot renew leases in the store of responses", exc_info=error)
                unwanted = set()
            for response_id in unwanted:
                await self.cancel(response_id)
            await asyncio.sleep(_BEAT_SECONDS)
