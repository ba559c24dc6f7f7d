"""The lane of engine `transformers` where each request has a cache of its own.

Requests take turns: every turn gives one of them one token, or one chunk of its prompt, so none
waits for the end of another. A cache holds all positions of all layers, also those that a windowed
layer no longer sees: so it can be cut back to any position, which harmony asks for each time that
old analysis is dropped, and the caches of finished requests serve prompts that begin alike.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gptoss_harmony import TokenLogprob, TokenOutput
from gptoss_harmony.errors import EngineError, OutOfMemory
from gptoss_serve.engines.transformers_counts import Counts
from gptoss_serve.engines.transformers_request import Chooser, Request, score_tokens

if TYPE_CHECKING:
    from torch import Tensor

SCORING_CHUNK = 64  # positions whose logits are held at once while a prompt is scored


class Turns:
    """Runs requests one step at a time in a thread of its own.

    Args:
        model: a causal language model of Transformers.
        counts: where the work is counted.
        chunk: tokens of a prompt that one turn takes through the model.
        most: requests that take turns; the others wait, first come first served.
        capacity: bytes that caches may take, running and kept ones together.
        reuse: whether caches of finished requests are kept.
    """

    def __init__(
        self, model: Any, counts: Counts, *, chunk: int, most: int, capacity: int, reuse: bool
    ) -> None:
        self._model = model
        self._counts = counts
        self._chunk = chunk
        self._most = most
        self._prefixes = _Prefixes(capacity, reuse=reuse)
        self._wake = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._running: deque[_Run] = deque()
        self._leaving = False
        self._worker = threading.Thread(target=self._work, name="gptoss-transformers", daemon=True)
        self._worker.start()

    @property
    def waiting(self) -> int:
        """Requests that have not had a turn."""
        return len(self._waiting)

    @property
    def kept_bytes(self) -> int:
        """Bytes of all caches."""
        return self._prefixes.nbytes + sum(run.nbytes for run in tuple(self._running))

    def add(self, request: Request) -> None:
        """Queue a request; it may already have a part of its answer."""
        request.wake = self._nudge
        with self._wake:
            self._waiting.append(request)
            self._wake.notify()

    def leave(self) -> None:
        """Stop after the present step and give up the model and the caches."""
        with self._wake:
            self._leaving = True
            self._wake.notify()
        self._worker.join()
        self._prefixes.clear()
        self._model = None

    def _nudge(self) -> None:
        with self._wake:
            self._wake.notify()

    def _work(self) -> None:
        import torch

        with torch.inference_mode():
            while self._admit():
                if self._guard(self._running[0]):
                    self._running.rotate(-1)
                else:
                    self._running.popleft()
        for request in [*self._waiting, *(run.request for run in self._running)]:
            request.stream.fail(EngineError("the program ends"))

    def _admit(self) -> bool:
        """Wait for work and let it in; False when there will be none any more."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._running or self._leaving)
            while self._waiting and len(self._running) < self._most and self._has_room():
                self._running.append(_Run(self._waiting.popleft()))
            return not self._leaving

    def _has_room(self) -> bool:
        taken = sum(run.nbytes for run in self._running)
        return not self._running or taken < self._prefixes.capacity

    def _guard(self, run: _Run) -> bool:
        """Give a request its turn; whatever goes wrong ends that request alone."""
        import torch

        try:
            return self._turn(run)
        except torch.OutOfMemoryError as error:
            self._prefixes.clear()
            failure = OutOfMemory(
                f"{self._model.device} ran out of memory while it served this request; shorten "
                "the prompt, or lower --prefill-chunk or --kv-memory"
            )
            failure.__cause__ = error
            return self._fail(run, failure)
        except Exception as error:
            return self._fail(run, error)

    def _turn(self, run: _Run) -> bool:
        """Take one step; returns whether the request goes on."""
        request = run.request
        if request.cancelled:
            return self._finish(run, TokenOutput(None, finish_reason="cancelled"))
        if run.cache is None:
            self._begin(run)
        logits = self._forward(run)  # (n, V)
        if run.computed < len(request.tokens):
            return True
        if run.scoring:
            run.begin()
        if len(request.tokens) >= request.limit:
            return self._finish(run, TokenOutput(None, finish_reason="length"))
        if run.chooser is None:
            run.chooser = Chooser(request, logits.device)
        output = run.chooser.choose(logits[-1])
        assert output.token is not None  # a chooser chooses or raises
        reason = request.accept(output.token)
        self._counts.add(generated=1)
        if reason is None:
            request.stream.put(output)
            return True
        last = TokenOutput(output.token, output.logprob, output.top_logprobs, reason)
        return self._finish(run, last)

    def _begin(self, run: _Run) -> None:
        """Give a request its cache, of which a part may already be computed."""
        from transformers import DynamicCache

        request = run.request
        run.cache = DynamicCache()
        run.scoring = request.sampling.prompt_logprobs is not None
        if not run.scoring:
            run.computed = self._prefixes.fill(run.cache, request)
            self._counts.add(cached=run.computed)
            run.begin()

    def _forward(self, run: _Run) -> Tensor:
        """Take what is pending, or a chunk of it, through the model; float32 (n, V)."""
        import torch

        start, size = run.computed, SCORING_CHUNK if run.scoring else self._chunk
        pending = run.request.tokens[start : start + size]
        self._prefixes.make_room(sum(other.nbytes for other in self._running))
        output = self._model(
            input_ids=torch.tensor([pending], device=self._model.device),
            past_key_values=run.cache,
            use_cache=True,
            logits_to_keep=0 if run.scoring else 1,
        )
        logits: Tensor = output.logits[0].float()  # (n, V)
        run.computed += len(pending)
        if run.scoring:
            run.score(logits, start)
        return logits

    def _finish(self, run: _Run, last: TokenOutput) -> bool:
        """End a request, keep its cache; the numbers are right before the consumer looks."""
        if run.cache is not None and run.computed:
            self._prefixes.keep(run)
        run.cache = None
        self._counts.ended()
        run.request.stream.put(last)
        return False

    def _fail(self, run: _Run, error: Exception) -> bool:
        self._counts.ended()
        run.request.stream.fail(error)
        return False


@dataclass(slots=True)
class _Run:
    """A request that takes turns, and its cache.

    Attributes:
        computed: tokens whose keys and values are in the cache.
        scoring: whether the prompt's tokens are being scored.
        scores: of the prompt; nothing comes before its first token.
    """

    request: Request
    cache: Any = None
    computed: int = 0
    scoring: bool = False
    chooser: Chooser | None = None
    scores: list[TokenLogprob | None] = field(default_factory=lambda: [None])

    @property
    def nbytes(self) -> int:
        """Bytes of the cache."""
        return cache_bytes(self.cache)

    def begin(self) -> None:
        """Tell the consumer what is known before the first token."""
        scores = tuple(self.scores) if self.scoring else None
        cached = 0 if self.scoring else self.computed
        if len(self.request.tokens) == self.request.prompt_length:  # else it began elsewhere
            self.request.stream.begin(cached_tokens=cached, prompt_logprobs=scores)
        self.scoring = False

    def score(self, logits: Tensor, start: int) -> None:
        """Score the prompt tokens that follow the positions of `logits`, (n, V) from `start`."""
        following = self.request.tokens[start + 1 : start + 1 + len(logits)]
        alternatives = self.request.sampling.prompt_logprobs or 0
        if following:
            self.scores += score_tokens(logits[: len(following)], following, alternatives)


class _Prefixes:
    """Caches of finished requests, the least recently used given up first."""

    def __init__(self, capacity: int, *, reuse: bool) -> None:
        self.capacity = capacity
        self._reuse = reuse
        self._kept: list[tuple[str, list[int], Any]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the kept caches."""
        return sum(cache_bytes(cache) for _, _, cache in tuple(self._kept))

    def fill(self, cache: Any, request: Request) -> int:
        """Copy the longest known prefix of a request into its empty cache.

        Returns:
            Its length; the last token is always left, because its logits are wanted.
        """
        salt, best, length = request.sampling.cache_salt, None, 0
        for entry in self._kept:
            if entry[0] == salt and (n := _common(entry[1], request.tokens[:-1])) > length:
                best, length = entry, n
        if best is None:
            return 0
        for index, layer in enumerate(best[2].layers):
            cache.update(layer.keys[..., :length, :], layer.values[..., :length, :], index)
        self._kept.remove(best)
        self._kept.append(best)
        return length

    def keep(self, run: _Run) -> None:
        """Keep the cache of a finished request in place of those that it contains."""
        if not self._reuse:
            return
        salt, tokens = run.request.sampling.cache_salt, run.request.tokens[: run.computed]
        self._kept = [
            entry
            for entry in self._kept
            if entry[0] != salt or _common(entry[1], tokens) < len(entry[1])
        ]
        self._kept.append((salt, tokens, run.cache))
        self.make_room(0)

    def make_room(self, running: int) -> None:
        """Give up kept caches while they and `running` bytes exceed the capacity."""
        while self._kept and self.nbytes + running > self.capacity:
            del self._kept[0]

    def clear(self) -> None:
        """Give up all of them."""
        self._kept.clear()


def cache_bytes(cache: Any) -> int:
    """Bytes of the keys and values of a cache of Transformers."""
    if cache is None:
        return 0
    return sum(2 * layer.keys.nbytes for layer in cache.layers if layer.keys is not None)


def _common(first: list[int], second: list[int]) -> int:
    """How many tokens two sequences have in common at their beginnings."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))
