"""One request inside the engine: its tokens, how far the cache has come, and when it ends.

A request is one growing list of tokens, prompt first, and a cache that holds the keys and values of
the first `cache.length` of them. The rest is *pending*. That is the whole state machine:

```
pending many   the prompt is being read, a chunk per pass (also after a preemption took the cache)
pending one    the last token goes through the model, whose logits choose the next one
```
"""

from __future__ import annotations

import weakref

from gptoss_core.cache import KVCache
from gptoss_core.prefix import Prefix
from gptoss_core.sampling import SamplingRow
from gptoss_harmony.engine import (
    Constraint,
    FinishReason,
    Prompt,
    Sampling,
    TokenLogprob,
    TokenOutput,
)
from gptoss_harmony.generation import TokenStream


class Request:
    """A prompt on its way to an answer.

    Args:
        prompt: at least one token.
        sampling: the consumer's settings.
        constraint: what the answer must obey, or None.
        stream: the consumer's side; held weakly, so that an answer nobody can read any more counts
            as cancelled.
        stop_tokens: ids that end the answer.
        limit: most tokens that prompt and answer may have together.
    """

    def __init__(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        constraint: Constraint | None,
        stream: TokenStream,
        stop_tokens: frozenset[int],
        limit: int,
    ) -> None:
        self.prompt = prompt
        self.sampling = sampling
        self.constraint = constraint
        self.stop_tokens = stop_tokens
        self.limit = limit
        self.tokens = list(prompt.tokens)
        self.row: SamplingRow | None = None  # made when the request first runs
        self.cache: KVCache | None = None
        self.cache_bytes = 0  # of the cache, as last measured
        self.cached_tokens: int | None = None  # None until the cache was first looked up
        self.scores: list[TokenLogprob | None] = [
            None
        ]  # of the prompt; nothing comes before token 0
        self._stream = weakref.ref(stream)

    @property
    def computed(self) -> int:
        """Tokens whose keys and values are in the cache."""
        return 0 if self.cache is None else self.cache.length

    @property
    def pending(self) -> int:
        """Tokens that have not been through the model; at least one until the request ends."""
        return len(self.tokens) - self.computed

    @property
    def scoring(self) -> bool:
        """Whether the logits at every position of the next chunk are wanted, not only the last."""
        wanted = self.sampling.prompt_logprobs is not None
        return wanted and len(self.scores) < len(self.prompt.tokens)

    @property
    def cancelled(self) -> bool:
        """Whether the consumer asked to stop, or is gone."""
        stream = self._stream()
        return stream is None or stream.cancelled

    @property
    def answer_length(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - len(self.prompt.tokens)

    def begin(self) -> None:
        """Tell the consumer what is known before the first token."""
        stream = self._stream()
        if stream is not None:
            wanted = self.sampling.prompt_logprobs is not None
            scores = tuple(self.scores) if wanted else None
            stream.begin(cached_tokens=self.cached_tokens or 0, prompt_logprobs=scores)

    def accept(self, token: int) -> FinishReason | None:
        """Append a generated token; returns why the answer ends with it, or None.

        Raises:
            Exception: whatever the request's constraint raises.
        """
        assert self.row is not None  # a token was sampled from it
        self.row.accept(token)
        self.tokens.append(token)
        if token in self.stop_tokens or (self.constraint is not None and self.constraint.done):
            return "stop"
        return "length" if len(self.tokens) >= self.limit else None

    def as_prefix(self) -> Prefix:
        """What the cache holds, for prompts that begin alike."""
        assert self.cache is not None  # callers ask only for requests that have computed something
        return Prefix.of(
            self.tokens,
            self.cache,
            salt=self.sampling.cache_salt,
            prompt_length=len(self.prompt.tokens),
        )

    def release(self) -> None:
        """Give up the cache; it is computed again if the request goes on."""
        self.cache, self.cache_bytes = None, 0
        if self.scoring:
            self.scores = [None]

    def trim(self) -> bool:
        """Make the cache smaller where that loses nothing but time; whether it became smaller."""
        if self.cache is None:
            return False
        before = self.cache_bytes
        self.cache.trim()
        self.cache_bytes = self.cache.nbytes()
        return self.cache_bytes < before

    def put(self, output: TokenOutput) -> None:
        """Hand an output to the consumer, if there still is one."""
        stream = self._stream()
        if stream is not None:
            stream.put(output)

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        stream = self._stream()
        if stream is not None:
            stream.fail(error)
