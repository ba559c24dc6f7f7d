"""The patch language: text in, a list of file operations out; no file is looked at.

```
*** Begin Patch
*** Add File: hello.txt
+Hello
*** Update File: src/app.py
*** Move to: src/main.py
@@ class Greeter
@@ def greet(self):
     name = self.name
-    print("Hi")
+    print("Hello", name)
*** End of File
*** Delete File: obsolete.txt
*** End Patch
```

An update's first hunk may leave out its `@@` line, several `@@` lines in a row narrow the place
down step by step, and an empty line inside a hunk counts as an empty context line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gptoss_tools.errors import PatchError

BEGIN = "*** Begin Patch"
END = "*** End Patch"
ADD = "*** Add File: "
DELETE = "*** Delete File: "
UPDATE = "*** Update File: "
MOVE = "*** Move to: "
END_OF_FILE = "*** End of File"


@dataclass(frozen=True, slots=True, kw_only=True)
class HunkLine:
    """One line of a hunk.

    Attributes:
        kind: " " keeps a line, "-" removes it, "+" inserts it.
        text: the line without its prefix.
        number: line of the patch it came from, counted from 1.
        bare: an empty line without a prefix; perhaps only a separator.
    """

    kind: Literal[" ", "-", "+"]
    text: str
    number: int
    bare: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """Consecutive lines to find and change.

    Attributes:
        headers: the text behind each `@@`, outermost first; bare `@@` lines add none.
        lines: context, removed and inserted lines in order.
        end_of_file: whether the hunk says that it reaches the end of the file.
        number: line of the patch where the hunk starts.
    """

    headers: tuple[str, ...]
    lines: tuple[HunkLine, ...]
    end_of_file: bool
    number: int

    @property
    def old(self) -> list[str]:
        """The lines that must be found: context and removed."""
        return [line.text for line in self.lines if line.kind != "+"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddFile:
    """Create `path` with `lines` joined by newlines (a last empty line makes a final newline)."""

    path: str
    lines: tuple[str, ...]
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteFile:
    """Remove `path`."""

    path: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFile:
    """Change `path` hunk by hunk, then give it the name `move_to` if there is one."""

    path: str
    move_to: str | None
    hunks: tuple[Hunk, ...]
    number: int


FileOp = AddFile | DeleteFile | UpdateFile


def parse_patch(text: str) -> list[FileOp]:
    """Read a whole patch.

    Args:
        text: the patch; blank lines around it and CRLF line ends throughout are accepted.

    Raises:
        PatchError: naming the line of the patch that is not in the language.
    """
    return _Parser(_patch_lines(text)).parse()


def _patch_lines(text: str) -> list[str]:
    """Lines of the patch; CRLF is undone only where every line has it."""
    lines = text.strip("\r\n\t ").split("\n")
    if len(lines) > 1 and all(line.endswith("\r") for line in lines[:-1]):
        lines = [line.removesuffix("\r") for line in lines]
    return lines


class _Parser:
    """A cursor over the lines of one patch."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._index = 0

    def parse(self) -> list[FileOp]:
        if self._lines[0].rstrip() != BEGIN:
            raise PatchError(f"patch line 1: a patch starts with `{BEGIN}`, not {self._shown(0)}")
        self._index = 1
        ops: list[FileOp] = []
        while not self._at_end_marker():
            ops.append(self._operation())
        if self._index != len(self._lines) - 1:
            raise PatchError(
                f"patch line {self._index + 2}: text after `{END}`; end the patch there"
            )
        if not ops:
            raise PatchError("the patch holds no file operation; add an Add, Update or Delete")
        return ops

    def _operation(self) -> FileOp:
        line, number = self._lines[self._index], self._index + 1
        self._index += 1
        if line.startswith(ADD):
            return AddFile(path=self._path(line, ADD), lines=self._added(), number=number)
        if line.startswith(DELETE):
            return DeleteFile(path=self._path(line, DELETE), number=number)
        if line.startswith(UPDATE):
            path = self._path(line, UPDATE)
            return self._update(path, number)
        raise PatchError(
            f"patch line {number}: expected `*** Add File: `, `*** Delete File: `, "
            f"`*** Update File: ` or `{END}`, not {self._shown(number - 1)}"
        )

    def _path(self, line: str, header: str) -> str:
        path = line[len(header) :].strip()
        if not path:
            raise PatchError(f"patch line {self._index}: `{header.strip()}` names no file")
        return path

    def _added(self) -> tuple[str, ...]:
        added: list[str] = []
        while not self._at_header():
            line = self._lines[self._index]
            if not line.startswith("+"):
                raise PatchError(
                    f"patch line {self._index + 1}: every line of an added file starts with `+`, "
                    f"not {self._shown(self._index)}"
                )
            added.append(line[1:])
            self._index += 1
        return tuple(added)

    def _update(self, path: str, number: int) -> UpdateFile:
        move_to = None
        if self._index < len(self._lines) and self._lines[self._index].startswith(MOVE):
            self._index += 1
            move_to = self._path(self._lines[self._index - 1], MOVE)
        hunks: list[Hunk] = []
        while not self._at_header():
            hunks.append(self._hunk())
        if not hunks and move_to is None:
            raise PatchError(f"patch line {number}: the update of `{path}` changes nothing")
        return UpdateFile(path=path, move_to=move_to, hunks=tuple(hunks), number=number)

    def _hunk(self) -> Hunk:
        number = self._index + 1
        headers: list[str] = []
        while self._index < len(self._lines) and self._is_hunk_header(self._lines[self._index]):
            header = self._lines[self._index][2:].strip()
            if header:
                headers.append(self._lines[self._index][3:])
            self._index += 1
        lines, end_of_file = self._hunk_lines()
        if not lines:
            raise PatchError(
                f"patch line {number}: the hunk is empty; put context, `-` or `+` lines below `@@`"
            )
        return Hunk(
            headers=tuple(headers), lines=tuple(lines), end_of_file=end_of_file, number=number
        )

    def _hunk_lines(self) -> tuple[list[HunkLine], bool]:
        lines: list[HunkLine] = []
        while not self._at_header():
            line = self._lines[self._index]
            if self._is_hunk_header(line):
                break
            self._index += 1
            if line.rstrip() == END_OF_FILE:
                return lines, True
            lines.append(self._hunk_line(line))
        return lines, False

    def _hunk_line(self, line: str) -> HunkLine:
        number = self._index
        if line in ("", "\r"):
            return HunkLine(kind=" ", text="", number=number, bare=True)
        for kind in (" ", "-", "+"):
            if line[0] == kind:
                return HunkLine(kind=kind, text=line[1:], number=number)
        raise PatchError(
            f"patch line {number}: a hunk line starts with a space, `-` or `+`, "
            f"not {self._shown(number - 1)}"
        )

    @staticmethod
    def _is_hunk_header(line: str) -> bool:
        return line.startswith("@@ ") or line.rstrip() == "@@"

    def _at_header(self) -> bool:
        """Whether the next line opens another operation or ends the patch."""
        if self._index >= len(self._lines):
            raise PatchError(f"the patch stops before `{END}`; write its last line")
        line = self._lines[self._index]
        return line.startswith((ADD, DELETE, UPDATE)) or line.rstrip() == END

    def _at_end_marker(self) -> bool:
        return self._at_header() and self._lines[self._index].rstrip() == END

    def _shown(self, index: int) -> str:
        line = self._lines[index]
        return f"`{line if len(line) <= 60 else line[:57] + '...'}`"
