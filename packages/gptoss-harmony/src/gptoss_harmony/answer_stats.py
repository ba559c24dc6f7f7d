"""How fast an answer came, counted while its tokens arrive.

```
stats = AnswerStats(prompt_tokens=57)
for output in generation:
    stats.count(output)
print(stats.sentence())       # 57 prompt tokens (0 cached), 20 generated, first token after ...
```
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from gptoss_harmony.engine import TokenOutput


@dataclass(kw_only=True)
class AnswerStats:
    """Counts and times of one answer; times in seconds from `started`, memory in bytes."""

    prompt_tokens: int
    cached_tokens: int = 0
    generated_tokens: int = 0
    finish_reason: str | None = None
    time_to_first_token: float | None = None
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    started: float = field(default_factory=time.perf_counter)

    @property
    def tokens_per_second(self) -> float | None:
        """Rate after the first token, or None for shorter answers."""
        if self.time_to_first_token is None or self.generated_tokens < 2:
            return None
        return (self.generated_tokens - 1) / max(self.seconds - self.time_to_first_token, 1e-9)

    def count(self, output: TokenOutput) -> None:
        """Take in one output."""
        self.seconds = time.perf_counter() - self.started
        self.finish_reason = output.finish_reason
        if output.token is not None:
            self.generated_tokens += 1
            if self.time_to_first_token is None:
                self.time_to_first_token = self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = asdict(self) | {"tokens_per_second": self.tokens_per_second}
        del values["started"]
        return values

    def sentence(self) -> str:
        """Return one line for people."""
        rate = f", {self.tokens_per_second:.1f} tok/s" if self.tokens_per_second else ""
        first = self.time_to_first_token
        wait = f", first token after {first:.3f} s" if first is not None else ""
        return (
            f"{self.prompt_tokens} prompt tokens ({self.cached_tokens} cached), "
            f"{self.generated_tokens} generated{wait}{rate}, "
            f"peak memory {self.peak_memory_bytes / 2**30:.2f} GiB, ended by {self.finish_reason}"
        )


def peak_resident_bytes() -> int:
    """Return the most memory this process ever held; 0 where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
