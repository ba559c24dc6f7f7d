"""Stop texts: cut an answer before the first of them, also across pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopTexts:
    """Watches one text that comes in pieces.

    Args:
        stops: texts that end it; they are not part of it.

    Attributes:
        hit: whether one was found; nothing more comes out then.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = list(stops)
        self._held = ""
        self.hit = False

    def feed(self, piece: str) -> str:
        """Take a piece; returns what is certain not to be part of a stop text."""
        if self.hit:
            return ""
        if not self._stops:
            return piece
        text = self._held + piece
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
