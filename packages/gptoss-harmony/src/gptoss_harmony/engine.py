"""The engine contract: tokens in, tokens out.

An engine is anything that continues a sequence of tokens: plain PyTorch, Triton kernels, C with
Metal, a vLLM server, a recording. All of them look like this:

```
engine = open_engine("torch", "nano")
for output in engine.generate([200006, 882], Sampling(max_tokens=8)):
    print(output.token, output.finish_reason)
engine.close()
```

`gptoss_harmony.testing` holds every engine to what is written here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_harmony.errors import UsageError
from gptoss_harmony.spans import Span

FinishReason = Literal["stop", "length", "cancelled"]

# Every word that `EngineSpec.supports` may hold. A request for a feature that an engine does not
# declare ends in `Unsupported`, never in silence.
FEATURES = frozenset(
    {
        "constraint",  # bit masks over the vocabulary
        "logprobs",  # of the generated tokens
        "prompt_logprobs",  # of the prompt's tokens
        "seed",  # same request, seed and batch give the same tokens
        "batching",  # concurrent requests share a step
        "exact_tokens",  # token ids go in and come out as they are, specials included
    }
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids to continue, with the labels that the renderer gave to ranges of them."""

    tokens: tuple[int, ...]
    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        """Accept any sequence of ids, keep a tuple."""
        object.__setattr__(self, "tokens", tuple(int(token) for token in self.tokens))
        object.__setattr__(self, "spans", tuple(self.spans))

    @classmethod
    def of(cls, prompt: Prompt | Sequence[int]) -> Prompt:
        """Return `prompt` itself, or a prompt without labels around a sequence of ids."""
        return prompt if isinstance(prompt, Prompt) else cls(tuple(prompt))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose the next token; the defaults sample from the model's own distribution.

    The order of the steps is: grammar mask, penalties, temperature, top-k, top-p, min-p, sample.

    Attributes:
        max_tokens: most tokens to generate; None means as many as the context holds. 0 generates
            none, which is how a prompt is only scored.
        temperature: 0 takes the most likely token.
        top_p: smallest set of tokens whose probability reaches this; 1 keeps all.
        top_k: keep this many of the most likely tokens; 0 keeps all.
        min_p: drop tokens less likely than this share of the most likely one.
        presence_penalty: taken once from the logit of each token already generated.
        frequency_penalty: taken from the logit once for each time the token was generated.
        repetition_penalty: divides positive and multiplies negative logits of tokens in the prompt
            or the answer; 1 changes nothing.
        seed: fixes the random choices; None draws fresh ones.
        stop_tokens: ids that end the answer. The stop token is the last one that comes out. None
            means harmony's assistant actions (`<|return|>` and `<|call|>`); () never stops.
        logprobs: how many alternatives to report beside each chosen token; None reports nothing,
            0 only the chosen token. Log probabilities are of the unmodified logits, natural log.
        prompt_logprobs: the same for the prompt's tokens.
        cache_salt: requests share cached prefixes only with requests of the same salt.
        extra: research options by name; an engine refuses a key that it does not know.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_tokens: tuple[int, ...] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    cache_salt: str = ""
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        """Refuse values outside their range, naming the field."""
        if self.stop_tokens is not None:
            object.__setattr__(self, "stop_tokens", tuple(self.stop_tokens))
        checks = {
            "max_tokens": (self.max_tokens is None or self.max_tokens >= 0, ">= 0"),
            "temperature": (0.0 <= self.temperature < float("inf"), "finite and >= 0"),
            "top_p": (0.0 < self.top_p <= 1.0, "in (0, 1]"),
            "top_k": (self.top_k >= 0, ">= 0 (0 keeps all)"),
            "min_p": (0.0 <= self.min_p <= 1.0, "in [0, 1]"),
            "presence_penalty": (math.isfinite(self.presence_penalty), "finite"),
            "frequency_penalty": (math.isfinite(self.frequency_penalty), "finite"),
            "repetition_penalty": (0.0 < self.repetition_penalty < float("inf"), "> 0"),
            "seed": (
                self.seed is None or -(2**63) <= self.seed < 2**64,
                "a whole number of 64 bits",
            ),
            "logprobs": (self.logprobs is None or 0 <= self.logprobs <= 20, "in 0..20"),
            "prompt_logprobs": (
                self.prompt_logprobs is None or 0 <= self.prompt_logprobs <= 20,
                "in 0..20",
            ),
        }
        for name, (holds, rule) in checks.items():
            if not holds:
                raise UsageError(f"{name} must be {rule}, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its natural-log probability and the most likely alternatives, best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One step of an answer.

    Attributes:
        token: the id; None only in a last output that adds no token (cancelled, or max_tokens 0).
        logprob: natural-log probability of the token, where `Sampling.logprobs` asked for it.
        top_logprobs: (id, log probability) of the most likely tokens, best first.
        finish_reason: None until the last output.
    """

    token: int | None
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None


class Generation(Protocol):
    """A running answer: an iterator object, not a generator.

    `next()` gives a `TokenOutput` and raises what went wrong (`EngineError`). The last output
    carries the finish reason; after it comes `StopIteration`. `gptoss_harmony.generation` has the
    implementation that engines share.
    """

    def __iter__(self) -> Self: ...

    def __next__(self) -> TokenOutput: ...

    def cancel(self) -> None:
        """Stop soon, from any thread, any number of times; `next()` then reports `cancelled`."""
        ...

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens whose keys and values were reused; blocks until that is known."""
        ...

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        """One entry per prompt token (None for the first), or None if not asked for; blocks."""
        ...


class Constraint(Protocol):
    """What may come next, as a bit mask over the vocabulary; one object per request."""

    source: Any  # the JSON Schema, Lark or regex it came from, for engines that translate it

    def fill(self, row: NDArray[np.int32]) -> bool:
        """Write the allowed tokens into `row` (int32, ceil(V / 32) words, bit 0 is token 0).

        Returns False, leaving `row` untouched, where every token is allowed.
        """
        ...

    def accept(self, token: int) -> None:
        """Advance past a generated token."""
        ...

    def rollback(self, count: int) -> None:
        """Take back the last `count` accepted tokens."""
        ...

    @property
    def done(self) -> bool:
        """Whether the constrained text is complete and nothing more may follow."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What an engine is, fixed when it opens."""

    name: str
    model_id: str
    context_length: int
    vocabulary_size: int
    device: str
    supports: frozenset[str]

    def __post_init__(self) -> None:
        """Refuse features that the contract does not know."""
        if unknown := self.supports - FEATURES:
            raise ValueError(
                f"unknown engine features {sorted(unknown)}; known: {sorted(FEATURES)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A snapshot of a live engine; bytes are of the engine's own device."""

    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    kv_bytes_used: int = 0
    kv_bytes_capacity: int = 0
    peak_memory_bytes: int = 0


class Engine(Protocol):
    """Continues token sequences. `generate` may be called from many threads at once."""

    Options: ClassVar[type[Any]]  # frozen dataclass; command lines make flags from its fields

    @classmethod
    def open(cls, checkpoint: str, options: Any) -> Self:
        """Load `checkpoint`; raises a `HarmonyError` that says what to do."""
        ...

    @property
    def spec(self) -> EngineSpec:
        """What the engine is and supports."""
        ...

    def generate(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
    ) -> Generation:
        """Start an answer and return at once; failures come out of `next()`."""
        ...

    def stats(self) -> EngineStats:
        """Counters and memory right now."""
        ...

    def close(self) -> None:
        """Let running answers finish, refuse new ones, free the device. Idempotent."""
        ...
