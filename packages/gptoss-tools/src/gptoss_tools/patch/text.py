r"""A file as lines that remember how they ended, so that what a patch leaves alone keeps its bytes.

A file is `text.split("\n")`: only LF ends a line, so form feeds and U+2028 stay inside. A final
newline is a last empty line; a CR before the LF belongs to the line's ending. An inserted line
takes the ending of its neighbour.

```
b"\xef\xbb\xbfa\r\nb"  ->  bom, [Line("a", "\r\n"), Line("b", "")]
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptoss_tools.errors import PatchError

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    r"""Text without its ending; the ending is "\n", "\r\n", or "" on the last line."""

    text: str
    ending: str


@dataclass(frozen=True, slots=True)
class TextFile:
    """The lines of a file and whether it starts with a byte order mark."""

    lines: tuple[Line, ...]
    bom: bool = False

    @classmethod
    def decode(cls, data: bytes) -> TextFile:
        """Split bytes into lines; bytes that are not UTF-8 survive unchanged."""
        bom = data.startswith(BOM)
        text = data[len(BOM) if bom else 0 :].decode("utf-8", "surrogateescape")
        parts = text.split("\n")
        lines = [
            Line(part[:-1], "\r\n") if part.endswith("\r") else Line(part, "\n")
            for part in parts[:-1]
        ]
        return cls((*lines, Line(parts[-1], "")), bom)

    def encode(self, path: str) -> bytes:
        """The bytes of the file; only the last line ends without a newline."""
        usual = self.usual_ending()
        *body, last = self.lines or (Line("", ""),)
        text = "".join(line.text + (line.ending or usual) for line in body) + last.text
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise PatchError(
                f"{path}: the patch holds half a character (U+D800..U+DFFF)"
            ) from error
        return BOM + data if self.bom else data

    def usual_ending(self) -> str:
        """The ending most lines have; LF where there is none to go by."""
        crlf = sum(line.ending == "\r\n" for line in self.lines)
        plain = sum(line.ending == "\n" for line in self.lines)
        return "\r\n" if crlf > plain else "\n"

    def replaced(self, start: int, stop: int, new: Sequence[Line]) -> TextFile:
        """A copy with lines [start, stop) exchanged."""
        return TextFile((*self.lines[:start], *new, *self.lines[stop:]), self.bom)
