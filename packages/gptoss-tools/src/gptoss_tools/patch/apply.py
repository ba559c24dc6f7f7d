"""apply_patch as a function: parse, plan, write; and undo.

```
report = apply_patch(text, "project")          # all or nothing
report = apply_patch(text, "project", dry_run=True)
undo_patch("project")
```
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from gptoss_tools.errors import PatchError
from gptoss_tools.patch.grammar import parse_patch
from gptoss_tools.patch.journal import Journal, digest
from gptoss_tools.patch.plan import Change, Content, Plan, make_plan
from gptoss_tools.patch.root import PROTECTED, Root


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was done, or would be.

    Attributes:
        changes: (action, path) pairs; the action is add, update or delete.
        fuzz: 0 where every hunk matched exactly; see `match`.
        notes: sentences about loose matches.
        dry_run: whether nothing was written.
    """

    changes: tuple[tuple[str, str], ...]
    fuzz: int
    notes: tuple[str, ...]
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "ok": True,
            "dry_run": self.dry_run,
            "changes": [{"action": action, "path": path} for action, path in self.changes],
            "fuzz": self.fuzz,
            "notes": list(self.notes),
        }


def apply_patch(
    text: str,
    root: str | os.PathLike[str] = ".",
    *,
    dry_run: bool = False,
    final_newline: bool = False,
    protected: frozenset[str] = PROTECTED,
) -> Report:
    """Apply a whole patch to the folder `root`, or nothing of it.

    Args:
        text: the patch.
        root: nothing outside of this folder is read or written.
        dry_run: check everything and write nothing.
        final_newline: end added files with a newline even where the patch does not.
        protected: names that no path may contain.

    Raises:
        PatchError: with the failing patch line and the nearest text; the tree is unchanged.
    """
    ops = parse_patch(text)
    with Root(root, protected=protected) as folder:
        if dry_run:
            return _report(make_plan(ops, folder, final_newline=final_newline), dry_run=True)
        with Journal(folder).locked() as journal:
            plan = make_plan(ops, folder, final_newline=final_newline)
            journal.commit(plan.changes)
            return _report(plan, dry_run=False)


def undo_patch(root: str | os.PathLike[str] = ".", *, dry_run: bool = False) -> Report:
    """Take back the newest patch that is still in place; up to 20 can be taken back.

    Raises:
        PatchError: there is none, or one of its files was edited since.
    """
    with Root(root) as folder, Journal(folder).locked() as journal:
        last = journal.last()
        if last is None:
            raise PatchError(f"{folder.folder}: no patch to take back")
        record, entries = last
        changes: list[Change] = []
        for index, entry in enumerate(entries):
            now = folder.read(entry.path)
            if (now and digest(now.data)) != entry.after:
                raise PatchError(
                    f"{entry.path} was edited since the patch; undo that edit first, or restore "
                    f"the file by hand"
                )
            after = None
            if entry.before is not None:
                data = journal.image(record, index, "before")
                after = Content(data=data, mode=entry.before_mode)
            changes.append(Change(path=entry.path, before=now, after=after))
        if not dry_run:
            journal.commit(changes, pops=record)
        return _report(Plan(changes=tuple(changes)), dry_run=dry_run)


def recover(root: str | os.PathLike[str] = ".") -> None:
    """Finish or take back a patch that a crash interrupted; `apply_patch` does it by itself.

    Raises:
        JournalError: files were edited since the crash.
    """
    with Root(root) as folder, Journal(folder).locked():
        pass


def _report(plan: Plan, *, dry_run: bool) -> Report:
    return Report(
        changes=tuple((change.action, change.path) for change in plan.changes),
        fuzz=plan.fuzz,
        notes=plan.notes,
        dry_run=dry_run,
    )
