"""Puts page text together: words with single spaces, breaks, lists, quotes, code.

While a link, an index or a formula is open, text goes into a capture of its own and comes back as
one piece when that ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable


class TextWriter:
    """The text of one page while it grows."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._captures: list[tuple[list[str], bool]] = []  # and the space due before it
        self._newlines = 2  # at the end of what is written
        self._space = False  # one is due before the next word
        self.quotes = 0  # depth of quotations
        self.preformatted = 0  # depth of code
        self.length = 0  # characters so far

    def begin_capture(self) -> None:
        """Collect what comes apart from the page."""
        self._captures.append(([], self._space))
        self._space = False

    def end_capture(self, render: Callable[[str], str]) -> None:
        """Write what was collected since the innermost `begin_capture`, as `render` makes it."""
        if not self._captures:
            return
        parts, leading = self._captures.pop()
        trailing, self._space = self._space, leading
        self.write(render("".join(parts)))
        self._space = self._space or trailing

    def separator(self, text: str) -> None:
        """Text that brings its own spaces."""
        self._space = False
        self.write(text)

    def text_node(self, text: str | None) -> None:
        """Text of the document: white space is one space, except in code."""
        if not text:
            return
        if self.preformatted and not self._captures:
            for number, line in enumerate(text.split("\n")):
                if number:
                    self.newline()
                if line:
                    self.write(line if not self._at_line_start() else f"    {line}")
            return
        words = " ".join(text.split())
        if text[0].isspace():
            self._space = True
        if words:
            self.write(words)
            self._space = text[-1].isspace()

    def write(self, text: str) -> None:
        """Add text to the line, with the space that is due before it."""
        if not text:
            return
        if self._captures:
            parts = self._captures[-1][0]
            parts.append((" " if self._space and parts else "") + text)
            self.length += len(text)
            self._space = False
            return
        if self._at_line_start():
            self._parts.append("> " * self.quotes)
            self.length += 2 * self.quotes
        elif self._space and not self._parts[-1].endswith((" ", "\n")):
            self._parts.append(" ")
        self._parts.append(text)
        self.length += len(text) + 1
        self._newlines, self._space = 0, False

    def _at_line_start(self) -> bool:
        return self._newlines > 0

    def newline(self) -> None:
        """End the line."""
        if self._captures:
            self._space = True
            return
        self._parts.append("\n")
        self._newlines += 1
        self._space = False

    def break_(self, count: int) -> None:
        """Make sure that `count` newlines end what is written."""
        if self._captures:
            self._space = True
            return
        while self._newlines < count:
            self.newline()

    def note(self, text: str) -> None:
        """A line of our own, whatever is open."""
        self._captures.clear()
        self.break_(2)
        self.write(text)

    def text(self) -> str:
        """Everything, with no more than one blank line in a row and none at the ends."""
        lines = [line.rstrip() for line in "".join(self._parts).split("\n")]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
