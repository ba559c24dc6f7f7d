"""What engine `transformers` has done so far, counted by all of its threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """Tokens since the start, and requests that have not ended."""

    open: int = 0
    prompt: int = 0
    cached: int = 0
    generated: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def began(self, prompt: int) -> None:
        """Count a request and its prompt."""
        with self._changed:
            self.open += 1
            self.prompt += prompt

    def add(self, *, cached: int = 0, generated: int = 0) -> None:
        """Count tokens."""
        with self._changed:
            self.cached += cached
            self.generated += generated

    def ended(self) -> None:
        """Count a request out."""
        with self._changed:
            self.open -= 1
            self._changed.notify_all()

    def wait_idle(self) -> None:
        """Block until every request has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self.open == 0)
