"""From operations to a plan: every operation is carried out in memory before anything is written.

Operations see the result of those before them, so one patch may update a file twice, delete it and
add it anew, or move it and change it under its new name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gptoss_tools.errors import PatchError
from gptoss_tools.patch.grammar import AddFile, DeleteFile, FileOp, Hunk, UpdateFile
from gptoss_tools.patch.match import END_OF_FILE_FUZZ, TYPOGRAPHIC_FUZZ, Finder, Place
from gptoss_tools.patch.root import Root, Snapshot
from gptoss_tools.patch.text import Line, TextFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a file will hold; `mode` None means the usual mode of a new file."""

    data: bytes
    mode: int | None


def content_of(snapshot: Snapshot | None) -> Content | None:
    """What a file holds, without what tells it apart from another file with the same content."""
    return None if snapshot is None else Content(data=snapshot.data, mode=snapshot.mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path before and after; None means that there is no file."""

    path: str
    before: Snapshot | None
    after: Content | None

    @property
    def action(self) -> Literal["add", "update", "delete"]:
        """What happens to the path as a whole."""
        if self.before is None:
            return "add"
        return "delete" if self.after is None else "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a patch does to a tree.

    Attributes:
        changes: one entry per path that ends up different, in the order first touched.
        fuzz: the sum of the looseness of all matches; 0 means that all were exact.
        notes: sentences about loose matches that a reader should look at.
    """

    changes: tuple[Change, ...]
    fuzz: int = 0
    notes: tuple[str, ...] = ()


def make_plan(ops: Sequence[FileOp], root: Root, *, final_newline: bool = False) -> Plan:
    """Carry out the operations in memory.

    Args:
        ops: a parsed patch.
        root: the folder they apply to; only read here.
        final_newline: end added files with a newline even where the patch does not.

    Raises:
        PatchError: for the first operation that cannot be done.
    """
    draft = _Draft(root=root, final_newline=final_newline)
    for op in ops:
        draft.apply(op)
    changes = tuple(
        Change(path=path, before=draft.before[path], after=after)
        for path, after in draft.after.items()
        if _differs(draft.before[path], after)
    )
    _refuse_file_below_file(changes)
    return Plan(changes=changes, fuzz=draft.fuzz, notes=tuple(draft.notes))


def _differs(before: Snapshot | None, after: Content | None) -> bool:
    if before is None or after is None:
        return (before is None) != (after is None)
    return before.data != after.data or before.mode != after.mode


def _refuse_file_below_file(changes: Sequence[Change]) -> None:
    """A path cannot be a file and the folder of another file at the same time."""
    files = {change.path for change in changes if change.after is not None}
    gone = {change.path for change in changes if change.after is None}
    for path in sorted(files):
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder in files or folder in gone:
                raise PatchError(f"{path}: `{folder}` is a file in the same patch, not a folder")


@dataclass(slots=True, kw_only=True)
class _Draft:
    """The tree as the operations so far leave it."""

    root: Root
    final_newline: bool
    before: dict[str, Snapshot | None] = field(default_factory=dict)
    after: dict[str, Content | None] = field(default_factory=dict)
    fuzz: int = 0
    notes: list[str] = field(default_factory=list)

    def apply(self, op: FileOp) -> None:
        path = self.root.relative(op.path)
        if isinstance(op, AddFile):
            self._add(path, op)
        elif isinstance(op, DeleteFile):
            self._require(path, op.number)
            self.after[path] = None
        else:
            self._update(path, op)

    def _add(self, path: str, op: AddFile) -> None:
        if self._current(path) is not None:
            raise PatchError(
                f"patch line {op.number}: {path} exists already; update it, or delete it first"
            )
        text = "\n".join(op.lines)
        if self.final_newline and text and not text.endswith("\n"):
            text += "\n"
        data = TextFile(tuple(Line(part, "\n") for part in text.split("\n"))).encode(path)
        before = self.before[path]
        self.after[path] = Content(data=data, mode=before.mode if before else None)

    def _update(self, path: str, op: UpdateFile) -> None:
        content = self._require(path, op.number)
        if op.hunks:
            content = Content(data=self._changed(path, content.data, op.hunks), mode=content.mode)
        target = path if op.move_to is None else self.root.relative(op.move_to)
        if target != path:
            if self._current(target) is not None:
                raise PatchError(
                    f"patch line {op.number}: cannot move {path} to {target}, which exists; "
                    f"delete it first"
                )
            self.after[path] = None
        self.after[target] = content

    def _changed(self, path: str, data: bytes, hunks: Sequence[Hunk]) -> bytes:
        file = TextFile.decode(data)
        finder = Finder([line.text for line in file.lines], path)
        result: list[Line] = []
        position = 0
        for hunk in hunks:
            place = finder.find(hunk)
            result += file.lines[position : place.start]
            result += _rewritten(file, hunk, place)
            position = place.stop
            self._remember(path, hunk, place)
        result += file.lines[position:]
        return TextFile(tuple(result), file.bom).encode(path)

    def _remember(self, path: str, hunk: Hunk, place: Place) -> None:
        self.fuzz += place.fuzz
        where = f"{path}: the hunk at patch line {hunk.number}"
        if place.fuzz % END_OF_FILE_FUZZ >= TYPOGRAPHIC_FUZZ:
            self.notes.append(
                f"{where} matched line {place.start + 1} only after typographic dashes, quotes or "
                f"spaces were read as plain ones; the file's own context lines were kept"
            )
        if place.fuzz >= END_OF_FILE_FUZZ:
            self.notes.append(f"{where} says `*** End of File` but matched line {place.start + 1}")

    def _require(self, path: str, number: int) -> Content:
        content = self._current(path)
        if content is None:
            raise PatchError(f"patch line {number}: there is no file {path}; check the path")
        return content

    def _current(self, path: str) -> Content | None:
        if path not in self.after:
            snapshot = self.root.read(path)
            self.before[path] = snapshot
            self.after[path] = content_of(snapshot)
        return self.after[path]


def _rewritten(file: TextFile, hunk: Hunk, place: Place) -> list[Line]:
    """The lines that replace the hunk's old lines; kept lines are the file's own."""
    result: list[Line] = []
    position = place.start
    for line in hunk.lines[: len(hunk.lines) - place.dropped]:
        if line.kind == "+":
            result.append(_inserted(file, position, line.text))
            continue
        if line.kind == " ":
            result.append(file.lines[position])
        position += 1
    return result


def _inserted(file: TextFile, position: int, text: str) -> Line:
    """A new line with the ending of the line above, else below, else the file's usual one."""
    if text.endswith("\r"):
        return Line(text[:-1], "\r\n")
    around = file.lines[max(position - 1, 0) : position + 1]
    ending = next((line.ending for line in around if line.ending), "")
    return Line(text, ending or file.usual_ending())
