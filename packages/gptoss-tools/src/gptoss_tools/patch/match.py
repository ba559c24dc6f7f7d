"""Where a hunk belongs: an exact search first, then looser ones, each with its price.

| how the lines agree | fuzz |
|---|---|
| equal | 0 |
| equal but for trailing white space | 1 |
| equal but for white space at both ends | 100 |
| equal after typographic dashes, quotes and spaces are made plain | 1,000 |
| an `*** End of File` hunk that is not at the end | + 10,000 |

Hunks of a file come in file order: the search starts where the last one ended.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gptoss_tools.errors import PatchError
from gptoss_tools.patch.grammar import Hunk

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_SINGLE = "\u2018\u2019\u201a\u201b\u2032\u02bc"
_DOUBLE = "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"
_PLAIN = str.maketrans(
    {
        **dict.fromkeys(_DASHES, "-"),
        **dict.fromkeys(_SINGLE, "'"),
        **dict.fromkeys(_DOUBLE, '"'),
        "\u2026": "...",
        "\u200b": "",
        "\ufeff": "",
    }
)

TYPOGRAPHIC_FUZZ = 1_000
END_OF_FILE_FUZZ = 10_000


def plain(text: str) -> str:
    """Text with typographic look-alikes made plain and white space stripped."""
    spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in text)
    return spaced.translate(_PLAIN).strip()


_LEVELS: tuple[tuple[int, Callable[[str], str]], ...] = (
    (0, str),
    (1, str.rstrip),
    (100, str.strip),
    (TYPOGRAPHIC_FUZZ, plain),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a hunk goes: lines [start, stop) of the file are its old lines.

    Attributes:
        fuzz: how loosely it matched, see the table above.
        dropped: trailing bare empty lines of the hunk that turned out to be separators.
    """

    start: int
    stop: int
    fuzz: int
    dropped: int = 0


class Finder:
    """Finds the hunks of one file, in order."""

    def __init__(self, lines: Sequence[str], path: str) -> None:
        self._path = path
        self._levels: list[list[str]] = [list(lines)]
        self._cursor = 0

    @property
    def _lines(self) -> list[str]:
        return self._levels[0]

    def find(self, hunk: Hunk) -> Place:
        """The place of the next hunk.

        Raises:
            PatchError: naming the patch line that failed and the nearest lines of the file.
        """
        anchored, fuzz = self._seek_headers(hunk.headers)
        for old, dropped in _readings(hunk):
            for start in dict.fromkeys((anchored, max(anchored - 1, self._cursor))):
                found = self._search(old, start, end_of_file=hunk.end_of_file)
                if found is not None:
                    index, extra = found
                    self._cursor = index + len(old)
                    return Place(start=index, stop=self._cursor, fuzz=fuzz + extra, dropped=dropped)
        raise PatchError(self._failure(hunk))

    def _seek_headers(self, headers: Sequence[str]) -> tuple[int, int]:
        """First line after the `@@` lines; a header that is nowhere ahead is passed over."""
        position, fuzz = self._cursor, 0
        for depth, header in enumerate(headers):
            for price, level in ((0, 0), (1, 2)):
                wanted = _LEVELS[level][1](header)
                lines = self._level(level)
                # Already inside the block that the header names: stay.
                if depth == 0 and wanted in lines[:position]:
                    break
                if wanted in lines[position:]:
                    position = lines.index(wanted, position) + 1
                    fuzz += price
                    break
        return position, fuzz

    def _search(
        self, old: Sequence[str], start: int, *, end_of_file: bool
    ) -> tuple[int, int] | None:
        if end_of_file:
            for tail in self._tails(len(old), start):
                for level, (price, form) in enumerate(_LEVELS):
                    if self._at(level, tail, [form(line) for line in old]):
                        return tail, price
        for level, (price, form) in enumerate(_LEVELS):
            index = self._scan(level, [form(line) for line in old], start)
            if index is not None:
                return index, price + (END_OF_FILE_FUZZ if end_of_file else 0)
        return None

    def _tails(self, count: int, start: int) -> Iterator[int]:
        """Starts from which `count` lines reach the end: before the final newline, then after."""
        total = len(self._lines)
        if total and not self._lines[-1] and total - 1 - count >= start:
            yield total - 1 - count
        if total - count >= start:
            yield total - count

    def _scan(self, level: int, wanted: list[str], start: int) -> int | None:
        if not wanted:
            return min(start, len(self._lines))
        lines, last = self._level(level), len(self._lines) - len(wanted)
        index = start
        while index <= last:
            try:
                index = lines.index(wanted[0], index, last + 1)
            except ValueError:
                return None
            if lines[index : index + len(wanted)] == wanted:
                return index
            index += 1
        return None

    def _at(self, level: int, index: int, wanted: list[str]) -> bool:
        return self._level(level)[index : index + len(wanted)] == wanted

    def _level(self, level: int) -> list[str]:
        """The file's lines in the form that a level compares, made once."""
        while len(self._levels) <= level:
            form = _LEVELS[len(self._levels)][1]
            self._levels.append([form(line) for line in self._lines])
        return self._levels[level]

    def _failure(self, hunk: Hunk) -> str:
        old = [line for line in hunk.lines if line.kind != "+"]
        forms = [plain(line.text) for line in old]
        earlier = self._scan(3, forms, 0)
        if earlier is not None and earlier < self._cursor:
            return (
                f"{self._path}: the hunk at patch line {hunk.number} matches line {earlier + 1}, "
                f"before the hunk above it; put the hunks in file order"
            )
        start = _nearest(self._level(3), forms)
        misses = (
            position
            for position, form in enumerate(forms)
            if self._level(3)[start + position : start + position + 1] != [form]
        )
        failed = old[next(misses, 0)]
        shown = [
            f"  {number + 1:>5}  {self._lines[number]}"
            for number in range(start, min(start + len(old), start + 12, len(self._lines)))
        ]
        return "\n".join(
            [
                f"{self._path}: the hunk at patch line {hunk.number} was not found in the file.",
                f"Patch line {failed.number} does not match: {failed.kind}{failed.text}",
                "Nearest lines of the file:" if shown else "The file has no lines there.",
                *shown,
                "Read the file again and copy its lines exactly.",
            ]
        )


def _readings(hunk: Hunk) -> Iterator[tuple[list[str], int]]:
    """The old lines as written, then without trailing bare empty lines that may be separators."""
    yield hunk.old, 0
    bare = 0
    while bare < len(hunk.lines) and hunk.lines[-1 - bare].bare:
        bare += 1
    if bare and bare < len(hunk.lines):
        yield hunk.old[:-bare], bare


def _nearest(lines: Sequence[str], wanted: Sequence[str]) -> int:
    """Start of the window that shares most lines with `wanted`, position by position."""
    scores: dict[int, int] = {}
    positions: dict[str, list[int]] = {}
    for position, form in enumerate(wanted[:64]):
        if form:
            positions.setdefault(form, []).append(position)
    for index, line in enumerate(lines):
        for position in positions.get(line, ()):
            if index >= position:
                scores[index - position] = scores.get(index - position, 0) + 1
    return max(scores, key=lambda start: (scores[start], -start)) if scores else 0
