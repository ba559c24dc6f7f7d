"""Admission: so many answers at once, so many waiting, each client in fair turn, and the drain.

```
async with admission.slot("key-1"):
    ...
```

A free place goes to the waiting client that has the fewest answers running, among those to the one
whose turn is longest ago: somebody with a hundred requests in the queue delays a newcomer by one
answer, not by a hundred. Where the queue is full, a newcomer takes the last place of whoever holds
more of it than the newcomer would.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gptoss_serve.errors import Overloaded, RateLimited

_Turn = asyncio.Future[None]


class Admission:
    """Lets a bounded number of answers run.

    Args:
        running: most answers at once.
        waiting: most requests that may wait for their turn.

    Attributes:
        running: answers now.
        waiting: requests now.
        draining: nothing new is let in.
    """

    def __init__(self, *, running: int = 64, waiting: int = 256) -> None:
        self._most_running = running
        self._most_waiting = waiting
        self._queues: dict[str, deque[_Turn]] = {}  # in the order of their turns; never empty
        self._running_of: Counter[str] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()
        self._deadline: float | None = None
        self.running = 0
        self.waiting = 0

    @property
    def draining(self) -> bool:
        """Whether new requests are refused."""
        return self._deadline is not None

    @property
    def clients_waiting(self) -> int:
        """How many clients have requests in the queue."""
        return len(self._queues)

    @asynccontextmanager
    async def slot(self, client: str = "") -> AsyncIterator[None]:
        """Wait for a turn and hold it.

        Args:
            client: whose turn; all of one name share theirs.

        Raises:
            Overloaded: the server is shutting down.
            RateLimited: too many wait already.
        """
        if self.draining:
            raise Overloaded("the server is shutting down; try again in a moment")
        if self.running < self._most_running:
            self._start(client)
        else:
            await self._wait(client)
        try:
            yield
        finally:
            self._stop(client)

    def begin_drain(self, seconds: float) -> None:
        """Refuse new requests from now on; what was let in has so long, or less if said before."""
        deadline = asyncio.get_running_loop().time() + seconds
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)

    @property
    def seconds_left(self) -> float:
        """Until the end of the drain."""
        if self._deadline is None:
            return float("inf")
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    async def drain(self, seconds: float) -> bool:
        """Refuse new requests and wait for the others; returns whether all ended in time."""
        self.begin_drain(seconds)
        try:
            async with asyncio.timeout(self.seconds_left):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return self._idle.is_set()

    async def _wait(self, client: str) -> None:
        if self.waiting >= self._most_waiting:
            self._make_place(client)
        turn: _Turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(turn)
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():  # it still stood in the queue
                self._leave(client, turn)
            elif turn.exception() is None:
                self._stop(client)  # its turn came while it was being cancelled
            raise

    def _make_place(self, client: str) -> None:
        """Send away the newest request of the greediest client, if that is not the newcomer."""
        greediest = max(self._queues, key=lambda name: len(self._queues[name]), default=client)
        mine = len(self._queues.get(client, ()))
        refusal = RateLimited(f"{self.waiting} requests are waiting already; try again in a moment")
        if mine + 1 >= len(self._queues.get(greediest, ())):
            raise refusal
        turn = self._queues[greediest][-1]
        self._leave(greediest, turn)
        if not turn.cancelled():
            turn.set_exception(refusal)

    def _leave(self, client: str, turn: _Turn) -> None:
        """Take a request out of the queue, if it still stands there."""
        queue = self._queues.get(client, deque())
        if turn not in queue:
            return
        queue.remove(turn)
        if not queue:
            del self._queues[client]
        self.waiting -= 1
        self._note_idle()

    def _start(self, client: str) -> None:
        self.running += 1
        self._running_of[client] += 1
        self._idle.clear()

    def _stop(self, client: str) -> None:
        self.running -= 1
        self._running_of[client] -= 1
        if not self._running_of[client]:
            del self._running_of[client]
        self._next()
        self._note_idle()

    def _next(self) -> None:
        """Give the free place away."""
        while self._queues:
            client = min(self._queues, key=lambda name: self._running_of[name])
            queue = self._queues.pop(client)
            turn = queue.popleft()
            if queue:
                self._queues[client] = queue  # behind all others
            self.waiting -= 1
            if not turn.cancelled():  # its client may have gone a moment ago
                self._start(client)
                turn.set_result(None)
                return

    def _note_idle(self) -> None:
        if self.running == 0 and self.waiting == 0:
            self._idle.set()
