"""From an engine's thread to an event loop: one thread per running answer, tokens in batches.

```
async with TokenPump(lambda: engine.generate(prompt, sampling)) as pump:
    async for outputs in pump:          # every token that came since the last look
        ...
```

Leaving the block cancels the answer. A reader that falls behind stops the thread after
`_MOST_WAITING` tokens, so that memory stays bounded.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gptoss_harmony import Generation, TokenOutput
from gptoss_harmony.errors import EngineError

_MOST_WAITING = 1024


class TokenPump:
    """Reads a generation in a thread of its own and hands batches of outputs to one coroutine.

    Args:
        start: starts the generation; called in the thread, so it may block.

    Attributes:
        cached_tokens: known once the first batch is there, of some servers with the last one.
    """

    def __init__(self, start: Callable[[], Generation]) -> None:
        self.cached_tokens = 0
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = threading.Condition()
        self._waiting: list[TokenOutput] = []
        self._failure: BaseException | None = None
        self._ended = False
        self._closed = False
        self._generation: Generation | None = None

    async def __aenter__(self) -> Self:
        threading.Thread(target=self._run, name="token-pump", daemon=True).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._lock.notify_all()
        self.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[TokenOutput]:
        while True:
            await self._arrived.wait()
            with self._lock:
                self._arrived.clear()
                batch, self._waiting = self._waiting, []
                if batch or not self._ended:
                    self._lock.notify_all()
                if self._ended:
                    self._arrived.set()  # the end stays visible
            if batch:
                return batch
            if self._ended:
                self._raise_failure()
                raise StopAsyncIteration

    def cancel(self) -> None:
        """Ask the engine to stop; the last batch then says `cancelled`. Idempotent."""
        with self._lock:
            generation = self._generation
        if generation is not None:
            generation.cancel()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self) -> None:
        try:
            generation = self._start()
            with self._lock:
                self._generation = generation
                closed = self._closed
            if closed:
                generation.cancel()
            self.cached_tokens = generation.cached_tokens
            for output in generation:
                self._hand_over(output)
            self.cached_tokens = generation.cached_tokens  # a server elsewhere says it last
        except BaseException as error:  # whatever it is belongs to the coroutine
            known = isinstance(error, Exception)
            self._failure = error if known else EngineError(f"the engine failed: {error!r}")
        self._ended = True
        self._wake()

    def _hand_over(self, output: TokenOutput) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self._closed or len(self._waiting) < _MOST_WAITING)
            if self._closed:
                return
            self._waiting.append(output)
            first = len(self._waiting) == 1
        if first:
            self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._closed = True
