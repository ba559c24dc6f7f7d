"""One step of the engine: admit requests, run the model, hand out the tokens, stay within memory.

```
batcher.add(request)
while batcher.busy:
    batcher.step()
```

It owns the running caches and the kept ones, and is used by one thread; `engine` adds the thread.
Whatever goes wrong ends the requests that it concerns and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gptoss_core.cache import RingCache
from gptoss_core.memory import MAX_SNAPSHOTS, SNAPSHOT_SPACING, cache_bytes, is_out_of_memory
from gptoss_core.prefix import PrefixStore
from gptoss_core.request import Request
from gptoss_core.runner import Outcome, Runner
from gptoss_core.sampling import SamplingRow
from gptoss_core.scheduler import Pass, Scheduler
from gptoss_harmony.engine import EngineStats, TokenOutput
from gptoss_harmony.errors import EngineError, OutOfMemory
from gptoss_harmony.tokens import MESSAGE_ENDS

MEASURE_EVERY = 64  # tokens an answer grows before its cache is measured again
GROWTH = 2  # a full buffer may double; so much is left free for a request that joins others


@dataclass(slots=True)
class _Counts:
    """Tokens since the start."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0


class Batcher:
    """Takes requests forward together.

    Args:
        runner: the model.
        scheduler: decides who runs.
        capacity: bytes that caches may take, running and kept ones together.
        prefix_reuse: whether caches of finished requests are kept.

    Attributes:
        stats: the numbers after the last step; replaced, never changed, so any thread may read.
    """

    def __init__(
        self, runner: Runner, scheduler: Scheduler, *, capacity: int, prefix_reuse: bool = True
    ) -> None:
        self.scheduler = scheduler
        self.store = PrefixStore()
        self.stats = EngineStats(kv_bytes_capacity=capacity)
        self._runner = runner
        self._config = runner.model.config
        self._device = runner.model.device
        self._dtype = runner.model.embedding.weight.dtype
        self._capacity = capacity
        self._reuse = prefix_reuse
        self._counts = _Counts()

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return self.scheduler.busy

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.scheduler.add(request)
        self._publish()

    def step(self) -> None:
        """Give every running request one token, or one chunk of its prompt."""
        self._drop_cancelled()
        for request in self.scheduler.admit(self._fits):
            self._guard(request, self._prepare)
        self._make_room()
        for work in self.scheduler.plan():
            self._run(work)
        self._publish()

    def fail_all(self, error: BaseException) -> None:
        """End every request with an error."""
        for request in [*self.scheduler.running, *self.scheduler.waiting]:
            self._fail(request, error)

    # Coming.

    def _prepare(self, request: Request) -> None:
        """Give an admitted request its cache, of which a part may already be computed."""
        if (need := self._foreseen(request)) > self._capacity:
            raise self._too_large(need)
        if request.row is None:
            request.row = SamplingRow(
                request.sampling,
                request.prompt.tokens,
                vocab_size=self._config.vocab_size,
                device=self._device,
                constraint=request.constraint,
            )
        if self._reuse and not request.scoring:
            salt = request.sampling.cache_salt
            running = [r.as_prefix() for r in self.scheduler.running if r.computed]
            request.cache = self.store.reuse(request.tokens, salt=salt, running=running)
        if request.cache is None:
            spacing = SNAPSHOT_SPACING if self._reuse else self._config.max_context_length
            request.cache = RingCache(self._config, block=spacing, max_snapshots=MAX_SNAPSHOTS)
        request.cache_bytes = request.cache.nbytes()
        self._mark(request)
        if request.cached_tokens is None:
            request.cached_tokens = request.computed
            self._counts.prompt += len(request.prompt.tokens)
            self._counts.cached += request.computed
            if not request.scoring:
                request.begin()

    def _mark(self, request: Request) -> None:
        """Say where later prompts are likely to part from this one: where messages end."""
        if not self._reuse or request.cache is None:
            return
        start = request.computed
        for position, token in enumerate(request.tokens[start:], start + 1):
            if token in MESSAGE_ENDS:
                request.cache.mark(position)
        request.cache.mark(len(request.prompt.tokens))

    # The step itself.

    def _run(self, work: Pass) -> None:
        starts = [request.computed for request, _ in work.parts]
        try:
            outcomes = self._runner.run(work)
        except Exception as error:
            self._recover(work, error)
            return
        for (request, count), start in zip(work.parts, starts, strict=True):
            if request.cache is not None and (count > 1 or start % MEASURE_EVERY == 0):
                request.cache_bytes = request.cache.nbytes()
        for outcome in outcomes:
            self._use(outcome)

    def _use(self, outcome: Outcome) -> None:
        """Turn the outcome of a pass into an output of its request."""
        request, token, score = outcome.request, outcome.token, outcome.score
        if outcome.failure is not None:
            self._fail(request, outcome.failure)
        elif token is None:
            self._finish(request, TokenOutput(None, finish_reason="length"))
        else:
            try:
                reason = request.accept(token)
            except Exception as error:
                failure = EngineError(f"the constraint failed on token {token}: {error}")
                failure.__cause__ = error
                self._fail(request, failure)
                return
            self._counts.generated += 1
            if self._reuse and token in MESSAGE_ENDS and request.cache is not None:
                request.cache.mark(len(request.tokens))
            logprob, top = (None, ()) if score is None else (score.logprob, score.top)
            output = TokenOutput(token, logprob, top, reason)
            if reason is None:
                request.put(output)
            else:
                self._finish(request, output)

    # Going.

    def _drop_cancelled(self) -> None:
        for request in [*self.scheduler.running, *self.scheduler.waiting]:
            if request.cancelled:
                self._finish(request, TokenOutput(None, finish_reason="cancelled"))

    def _finish(self, request: Request, last: TokenOutput) -> None:
        """End a request; its cache is kept. The statistics are right before the consumer looks."""
        if self._reuse and request.computed:
            self.store.keep(request.as_prefix())
        self.scheduler.remove(request)
        request.release()
        self.store.evict(self._excess())
        self._publish()
        request.put(last)

    def _fail(self, request: Request, error: BaseException) -> None:
        self.scheduler.remove(request)
        request.release()
        self._publish()
        request.fail(error)

    def _guard(self, request: Request, act: Callable[[Request], None]) -> None:
        """Do something for one request; an error ends that request alone."""
        try:
            act(request)
        except Exception as error:
            self._fail(request, self._named(error))

    # Memory.

    def _running_bytes(self) -> int:
        return sum(request.cache_bytes for request in self.scheduler.running)

    def _excess(self) -> int:
        """Bytes above the capacity; negative where there is room."""
        return self._running_bytes() + self.store.nbytes - self._capacity

    def _foreseen(self, request: Request) -> int:
        """The least that the cache of a request takes once it holds what is known of it."""
        return cache_bytes(self._config, len(request.tokens), self._dtype)

    def _fits(self, request: Request) -> bool:
        """Whether a request can join; kept caches make room for it."""
        taken = sum(max(r.cache_bytes, self._foreseen(r)) for r in self.scheduler.running)
        return taken + GROWTH * self._foreseen(request) <= self._capacity

    def _make_room(self) -> None:
        """Stay within the capacity: drop kept caches first, then send the youngest back."""
        while (excess := self._excess()) > 0:
            if self.store.evict(excess):
                continue
            request = self.scheduler.preempt()
            if request is not None:
                request.release()
                continue
            (request,) = self.scheduler.running
            if not request.trim():
                self._fail(request, self._too_large(request.cache_bytes))

    def _recover(self, work: Pass, error: Exception) -> None:
        """After a failed pass: its caches are not to be trusted and go.

        Where memory ran out, kept caches go too and the requests start over, fewer at a time; one
        that still does not fit when it is alone fails.
        """
        requests = [request for request, _ in work.parts]
        exhausted = is_out_of_memory(error)
        freed = self.store.evict(self.store.nbytes) if exhausted else 0
        for request in requests:
            request.release()
        if not exhausted or (len(self.scheduler.running) == 1 and not freed):
            for request in requests:
                self._fail(request, self._named(error))
            return
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self.scheduler.narrow(len(self.scheduler.running) // 2)
        self.scheduler.requeue(requests)

    def _too_large(self, need: int) -> OutOfMemory:
        return OutOfMemory(
            f"the keys and values of this request take {need / 2**20:.0f} MiB, but caches may take "
            f"{self._capacity / 2**20:.0f} MiB; shorten the prompt or raise --kv-memory"
        )

    def _named(self, error: BaseException) -> BaseException:
        """Give running out of memory its name; the stream names every other failure."""
        if isinstance(error, EngineError) or not is_out_of_memory(error):
            return error
        named = OutOfMemory(
            f"{self._device} ran out of memory while it served this request; shorten the "
            "prompt, or lower --prefill-chunk or --kv-memory"
        )
        named.__cause__ = error
        return named

    def _publish(self) -> None:
        """Replace the statistics."""
        self.stats = EngineStats(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            prompt_tokens=self._counts.prompt,
            cached_tokens=self._counts.cached,
            generated_tokens=self._counts.generated,
            kv_bytes_used=self._running_bytes() + self.store.nbytes,
            kv_bytes_capacity=self._capacity,
        )
