r"""Text that comes in pieces, wrapped at words as it comes, behind a frame if there is one.

```
flow = Flow(console, prefix=Text("│ "), width=40)
flow.put(Text("A long li"))      # "li" waits: the word may go on
flow.put(Text("ne\n"))
flow.end()
```
"""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

# A line end, blanks, one wide character (a line may end after each), or a word.
_WIDE = (
    "\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6"
)
_PIECES = re.compile(rf"\n|[^\S\n]+|[{_WIDE}]|[^\s{_WIDE}]+")
_FENCE = "```"


class Flow:
    """One part of an answer on its way to a terminal.

    Args:
        console: where to.
        prefix: what every line begins with.
        width: cells of a line; None wraps nothing, which is right for pipes and files.
    """

    def __init__(self, console: Console, *, prefix: Text | None = None, width: int | None) -> None:
        self._console = console
        self._prefix = prefix or Text()
        self._room = None if width is None else max(8, width - self._prefix.cell_len)
        self._held = Text()  # a word that may go on
        self._blanks = Text()  # before the next word
        self._line = ""  # what the current line of the text holds, wrapped or not
        self._column = 0
        self._is_open = False  # whether the cursor stands in a line of ours
        self._is_code = False

    def put(self, text: Text) -> None:
        """Print what is certain."""
        text = self._held + text
        pieces = [match.span() for match in _PIECES.finditer(text.plain)]
        is_whole = not pieces or text.plain[-1].isspace() or self._room is None
        for start, end in pieces if is_whole else pieces[:-1]:
            self._print(text[start:end])
        self._held = Text() if is_whole else text[pieces[-1][0] :]

    def end(self) -> None:
        """Print what waited, and end the line."""
        if self._held:
            self._print(self._held)
        self._held = Text()
        if self._is_open:
            self._break()

    def _print(self, piece: Text) -> None:
        if piece.plain == "\n":
            self._open()
            self._break()
            if self._line.lstrip().startswith(_FENCE):
                self._is_code = not self._is_code
            self._line = ""
            return
        self._line += piece.plain
        if self._room is None or (self._is_code and not self._prefix):
            self._write(piece)  # code is left to the terminal, which copies it in one piece
        else:
            self._fit(piece, self._room)

    def _fit(self, piece: Text, room: int) -> None:
        if piece.plain.isspace():
            piece.expand_tabs(4)
            self._blanks += piece  # not seen where a line ends
            return
        blanks, self._blanks = self._blanks, Text()
        if self._column + blanks.cell_len + piece.cell_len <= room:
            piece = blanks + piece
        elif self._column:
            self._break()
        while piece.cell_len > room:
            count = next(n for n in range(len(piece), 0, -1) if cell_len(piece.plain[:n]) <= room)
            self._write(piece[:count])
            self._break()
            piece = piece[count:]
        self._write(piece)

    def _write(self, piece: Text) -> None:
        self._open()
        if self._room is None:
            self._console.file.write(piece.plain)  # the console would spell out tabs
            self._console.file.flush()
        else:
            self._console.print(piece, end="", soft_wrap=True, highlight=False)
        self._column += piece.cell_len

    def _open(self) -> None:
        if not self._is_open and self._prefix:
            self._console.print(self._prefix, end="", soft_wrap=True, highlight=False)
        self._is_open = True

    def _break(self) -> None:
        self._console.print()
        self._column, self._is_open, self._blanks = 0, False, Text()
