"""What code wrote, bounded while it arrives: the start and the end are kept, the middle is cut."""

from __future__ import annotations


class CappedOutput:
    """Collects text up to a limit.

    Args:
        limit: characters to keep; half of them from the start, half from the end.
    """

    def __init__(self, limit: int) -> None:
        self._head_limit = limit - limit // 2
        self._tail_limit = limit // 2
        self._head = ""
        self._tail = ""
        self._cut = 0

    def append(self, text: str) -> None:
        """Take more text."""
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += text[:room]
            text = text[room:]
        if not text:
            return
        self._tail += text
        extra = len(self._tail) - self._tail_limit
        if extra > 0:
            self._cut += extra
            self._tail = self._tail[extra:]

    def text(self) -> str:
        """Everything kept, with a line that says how much is missing."""
        if not self._cut:
            return self._head + self._tail
        return f"{self._head}\n[... {self._cut:,} characters cut ...]\n{self._tail}"
