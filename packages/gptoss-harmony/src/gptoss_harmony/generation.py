"""The answer in flight that engines share: one thread produces tokens, another consumes them.

```
generation = TokenStream()
generation.begin(cached_tokens=128)      # engine thread
generation.put(TokenOutput(17))
generation.put(TokenOutput(200002, finish_reason="stop"))
list(generation)                         # any other thread
```
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Self

from gptoss_harmony.engine import TokenLogprob, TokenOutput
from gptoss_harmony.errors import EngineError


class TokenStream:
    """A `Generation` fed by an engine thread.

    Args:
        on_cancel: called once, from the cancelling thread, when the consumer cancels before the
            end. An engine uses it to wake its scheduler; the engine then ends the stream with
            `finish_cancelled`.
    """

    def __init__(self, on_cancel: Callable[[], None] | None = None) -> None:
        self._ready = threading.Condition()
        self._outputs: deque[TokenOutput] = deque()
        self._failure: BaseException | None = None
        self._ended = False  # the engine will put nothing more
        self._begun = False
        self._cancelled = False
        self._cached_tokens = 0
        self._prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
        self._on_cancel = on_cancel

    # The consumer's side.

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenOutput:
        with self._ready:
            self._ready.wait_for(lambda: self._outputs or self._ended)
            if self._outputs:
                return self._outputs.popleft()
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            raise StopIteration

    def cancel(self) -> None:
        """Ask the engine to stop; see `Generation.cancel`."""
        with self._ready:
            if self._cancelled or self._ended:
                return
            self._cancelled = True
        if self._on_cancel is not None:
            self._on_cancel()

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens reused from the cache; blocks until the engine has looked."""
        self._wait_begun()
        return self._cached_tokens

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        """Scores of the prompt; blocks until the prompt has been read."""
        self._wait_begun()
        return self._prompt_logprobs

    def _wait_begun(self) -> None:
        with self._ready:
            self._ready.wait_for(lambda: self._begun or self._ended)

    # The engine's side.

    @property
    def cancelled(self) -> bool:
        """Whether the consumer asked to stop."""
        return self._cancelled

    @property
    def ended(self) -> bool:
        """Whether the engine has said its last."""
        return self._ended

    def begin(
        self,
        *,
        cached_tokens: int,
        prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None,
    ) -> None:
        """Report what is known before the first token."""
        with self._ready:
            self._cached_tokens = cached_tokens
            self._prompt_logprobs = prompt_logprobs
            self._begun = True
            self._ready.notify_all()

    def put(self, output: TokenOutput) -> None:
        """Hand over one output; an output with a finish reason ends the stream."""
        with self._ready:
            if self._ended:
                return
            self._outputs.append(output)
            if output.finish_reason is not None:
                self._ended = self._begun = True
            self._ready.notify_all()

    def finish_cancelled(self) -> None:
        """End the stream because the consumer asked for it."""
        self.put(TokenOutput(None, finish_reason="cancelled"))

    def fail(self, error: BaseException) -> None:
        """End the stream with an error, which `next()` raises after the outputs before it."""
        with self._ready:
            if self._ended:
                return
            known = isinstance(error, EngineError)
            self._failure = error if known else EngineError(f"the engine failed: {error!r}")
            if not known:
                self._failure.__cause__ = error
            self._ended = True
            self._ready.notify_all()
