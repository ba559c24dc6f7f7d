"""Kills, full disks and lost permissions at every step of a commit: all or nothing."""

import errno
import hashlib
import json
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from gptoss_tools.errors import JournalError, PatchError
from gptoss_tools.patch.apply import apply_patch, recover, undo_patch

PATCH = """*** Begin Patch
*** Add File: new/one.txt
+1
*** Update File: two.txt
*** Move to: moved/two.txt
@@
-old
+new
*** Delete File: three.txt
*** Update File: four.txt
-a
+b
*** End Patch"""

BEFORE = {"two.txt": "old\n", "three.txt": "gone\n", "four.txt": "a"}
AFTER = {"new/one.txt": "1", "moved/two.txt": "new\n", "four.txt": "b"}

# Every call through which a commit changes the disk.
CALLS = ("mkdir", "write", "rename", "unlink", "rmdir", "fsync", "fchmod", "chmod", "chown")


def fill(root: Path) -> None:
    for name, text in BEFORE.items():
        (root / name).write_text(text)


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and ".apply_patch" not in path.parts
    }


def strike(count: int, blow: Callable[[], None]) -> Callable[[], None]:
    """Wrap the calls of `os` so that the `count`-th one is hit; returns what undoes that."""
    seen = 0
    saved = {name: getattr(os, name) for name in CALLS}

    def wrap(name: str) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            nonlocal seen
            seen += 1
            if seen == count:
                blow()
            return saved[name](*arguments, **keywords)

        return call

    for name in CALLS:
        setattr(os, name, wrap(name))

    def restore() -> None:
        for name, function in saved.items():
            setattr(os, name, function)

    return restore


def killed_at(count: int, action: Callable[[], object]) -> bool:
    """Run `action` in a child that is killed at its `count`-th change; False: it got through."""
    with warnings.catch_warnings():
        # Newer Pythons warn of threads elsewhere in the process; the child touches files only.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        strike(count, lambda: os.kill(os.getpid(), signal.SIGKILL))
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def failure_at(
    count: int, blow: Callable[[], None], action: Callable[[], object]
) -> PatchError | None:
    """Run `action` with its `count`-th change failing; None: it succeeded nevertheless."""
    restore = strike(count, blow)
    try:
        action()
    except PatchError as error:
        return error
    finally:
        restore()
    return None


@pytest.mark.slow
def test_sigkill_at_every_write_of_a_commit(tmp_path: Path) -> None:
    outcomes = []
    for count in range(1, 200):
        root = tmp_path / str(count)
        root.mkdir()
        fill(root)
        killed = killed_at(count, lambda root=root: apply_patch(PATCH, root))  # type: ignore[misc]
        recover(root)
        assert tree(root) in (BEFORE, AFTER), count
        outcomes.append(tree(root) == AFTER)
        if not killed:
            break
    assert count > 30, "the commit has more steps than that"
    assert outcomes[0] is False
    assert outcomes[-1] is True
    # Nothing before the commit point, all after it, never back and forth.
    assert outcomes == sorted(outcomes)


@pytest.mark.slow
def test_sigkill_at_every_write_of_recovery_and_undo(tmp_path: Path) -> None:
    for count in range(1, 200):
        root = tmp_path / str(count)
        root.mkdir()
        fill(root)
        apply_patch(PATCH, root)
        killed = killed_at(count, lambda root=root: undo_patch(root))  # type: ignore[misc]
        killed_at(3, lambda root=root: recover(root))  # type: ignore[misc]
        recover(root)
        assert tree(root) in (BEFORE, AFTER), count
        if not killed:
            break
    assert tree(root) == BEFORE
    assert sorted(path.name for path in root.iterdir()) == sorted([".apply_patch", *BEFORE])


def test_a_full_disk_at_every_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def blow() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for count in range(1, 200):
        root = tmp_path / str(count)
        root.mkdir()
        fill(root)
        error = failure_at(count, blow, lambda root=root: apply_patch(PATCH, root))  # type: ignore[misc]
        if error is None:
            break
        assert "No space left" in str(error)
        assert tree(root) == BEFORE, count
        recover(root)
        assert tree(root) == BEFORE, count
    # What is left are the steps after the last file is in place.
    assert count > 30
    assert tree(root) == AFTER
    recover(root)
    assert tree(root) == AFTER


@pytest.mark.slow
def test_recovery_does_not_overwrite_a_later_edit(tmp_path: Path) -> None:
    for count in range(1, 200):
        root = tmp_path / str(count)
        root.mkdir()
        fill(root)
        assert killed_at(count, lambda root=root: apply_patch(PATCH, root))  # type: ignore[misc]
        if (root / "new/one.txt").exists():
            break
    (root / "two.txt").write_text("mine")
    with pytest.raises(JournalError, match=r"two\.txt was edited"):
        recover(root)
    assert (root / "two.txt").read_text() == "mine"


def test_a_file_that_changes_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    original = os.fsync

    def meddle(descriptor: int) -> None:
        if list((tmp_path / ".apply_patch").glob("*.new")):
            (tmp_path / "four.txt").write_text("somebody else")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", meddle)
    with pytest.raises(PatchError, match="changed while"):
        apply_patch(PATCH, tmp_path)
    assert tree(tmp_path) == {**BEFORE, "four.txt": "somebody else"}


def plant(root: Path, manifest: str) -> None:
    """A journal that came with somebody else's folder."""
    folder = root / ".apply_patch/x.commit"
    folder.mkdir(parents=True)
    (folder / "after-0").write_text("planted")
    (folder / "manifest.json").write_text(manifest)


def entry(**changes: object) -> str:
    after = hashlib.sha256(b"planted").hexdigest()
    good = {"path": "f", "before": None, "after": after, "before_mode": 0, "after_mode": 0o644}
    return json.dumps({"pops": None, "folders": [], "entries": [good | changes]})


@pytest.mark.parametrize(
    "manifest",
    [
        '{"entries": ' + "[" * 100_000,
        "[]",
        "{}",
        entry(path="../f"),
        entry(path=".git/hooks/post-commit"),
        entry(path=5),
        entry(after_mode="x"),
        entry(more=1),
    ],
    ids=range(8),
)
def test_a_planted_journal_is_refused(root: Path, manifest: str) -> None:
    plant(root, manifest)
    with pytest.raises(JournalError, match="is damaged; remove that folder"):
        apply_patch("*** Begin Patch\n*** Add File: a\n+x\n*** End Patch", root)
    assert tree(root) == {}
    assert not (root.parent / "f").exists()


def test_a_planted_journal_gives_nobody_the_rights_of_root(root: Path) -> None:
    plant(root, entry(after_mode=0o6755))
    recover(root)
    assert (root / "f").stat().st_mode & 0o7777 == 0o755


def test_rubbish_that_is_no_folder_is_cleared(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("kept")
    (root / ".apply_patch").mkdir()
    (root / ".apply_patch/x.new").symlink_to(outside)
    (root / ".apply_patch/y.new").write_text("")
    recover(root)
    assert os.listdir(root / ".apply_patch") == [".gitignore"]
    assert (outside / "f").read_text() == "kept"
