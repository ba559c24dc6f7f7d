"""One line of the benchmark's table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement.

    Attributes:
        what: decode, prefill or mix.
        batch: sequences at once.
        context: tokens of each (decode), of the prompt (prefill), or of all prompts (mix).
        rate: tokens per second.
        ceiling: what the card could do, in the same unit; None where there is none.
        note: what a reader should know.
        engine: triton, or peer.
    """

    what: str
    batch: int
    context: int
    rate: float
    ceiling: float | None = None
    note: str = ""
    engine: str = "triton"

    @property
    def share(self) -> float | None:
        """Of the ceiling."""
        return None if self.ceiling is None else self.rate / self.ceiling

    @property
    def work(self) -> tuple[str, int, int]:
        """What was done, by whomever."""
        return self.what, self.batch, self.context
