"""Caches of earlier requests, kept so that a prompt that starts alike need not be computed again.

A chat turn repeats everything before it, and harmony then drops the old analysis:

```
turn 1   system user <|start|>assistant ┊ <|channel|>analysis ... <|channel|>final ... <|return|>
turn 2   system user <|start|>assistant ┊ <|channel|>final ... <|end|> user <|start|>assistant
         └──────── shared ────────────┘
```

A kept cache whose whole prompt is shared is *taken* and wound back: this is the next turn of its
conversation, and what it loses would not come back. A cache that shares less (the same system
prompt, another question), or that still runs, is *forked*: both go on. Requests with different
salts share nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptoss_core.cache import KVCache

MAX_ENTRIES = 256  # every lookup compares with each of them


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """A cache and the tokens that it holds.

    Attributes:
        tokens: int64 (cache.length,).
        cache: their keys and values.
        salt: of the request that computed them.
        prompt_length: how many of them were its prompt.
    """

    tokens: NDArray[np.int64]
    cache: KVCache
    salt: str
    prompt_length: int

    @classmethod
    def of(cls, tokens: Sequence[int], cache: KVCache, *, salt: str, prompt_length: int) -> Prefix:
        """Describe a cache; of `tokens` only those that it holds are kept."""
        held = np.asarray(tokens[: cache.length], dtype=np.int64)
        return cls(held, cache, salt, prompt_length)

    def shared_with(self, tokens: NDArray[np.int64]) -> int:
        """Length of the longest common prefix."""
        length = min(len(self.tokens), len(tokens))
        differs = np.flatnonzero(self.tokens[:length] != tokens[:length])
        return int(differs[0]) if len(differs) else length


class PrefixStore:
    """The kept caches, the one longest unused first.

    Not for several threads at once: the engine's worker owns it.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[Prefix, int] = OrderedDict()  # with the bytes of each
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def reuse(
        self, prompt: Sequence[int], *, salt: str, running: Iterable[Prefix] = ()
    ) -> KVCache | None:
        """Find the cache that shares most with a prompt and return one that holds the shared part.

        At least the last prompt token stays to be computed, since its logits choose the answer.
        A windowed layer can go back only to a saved point, so less may be held than is shared.

        Args:
            prompt: the new request's tokens.
            salt: its salt.
            running: caches in use, which can be forked.

        Returns:
            A cache for the request alone, or None where nothing is shared.
        """
        tokens = np.asarray(prompt[:-1], dtype=np.int64)
        known = [prefix for prefix in (*self._entries, *running) if prefix.salt == salt]
        shares = [prefix.shared_with(tokens) for prefix in known]
        if not shares or max(shares) == 0:
            return None
        shared = max(shares)
        best = known[shares.index(shared)]
        if best in self._entries and shared >= min(best.prompt_length, len(best.tokens)):
            self._remove(best)
            best.cache.truncate(shared)
            return best.cache if best.cache.length else None
        if best in self._entries:
            self._entries.move_to_end(best)
        fork = best.cache.fork(shared)
        return fork if fork.length else None

    def keep(self, prefix: Prefix) -> None:
        """Keep a cache; caches of prefixes of its tokens add nothing and go."""
        if not len(prefix.tokens):
            return
        for other in list(self._entries):
            if other.salt == prefix.salt and other.shared_with(prefix.tokens) == len(other.tokens):
                self._remove(other)
        size = prefix.cache.nbytes()
        self._entries[prefix] = size
        self.nbytes += size
        while len(self._entries) > MAX_ENTRIES:
            self._remove(next(iter(self._entries)))

    def evict(self, wanted: int) -> int:
        """Drop caches, longest unused first, until `wanted` bytes are free; returns those freed."""
        freed = 0
        while self._entries and freed < wanted:
            freed += self._remove(next(iter(self._entries)))
        return freed

    def _remove(self, prefix: Prefix) -> int:
        size = self._entries.pop(prefix)
        self.nbytes -= size
        return size
