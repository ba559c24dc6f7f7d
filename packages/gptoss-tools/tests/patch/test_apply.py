"""Whole patches on real folders: results, refusals, undo."""

import json
import os
from pathlib import Path

import pytest

from gptoss_tools.errors import JournalError, PatchError
from gptoss_tools.patch.apply import apply_patch, recover, undo_patch


def patch(*lines: str) -> str:
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".apply_patch" not in path.parts
    }


def test_add_update_move_delete_in_one_patch(root: Path) -> None:
    (root / "old.py").write_text("def greet():\n    print('Hi')\n")
    (root / "gone").write_text("x")
    report = apply_patch(
        patch(
            "*** Add File: deep/er/hello.txt",
            "+Hello",
            "*** Update File: old.py",
            "*** Move to: src/new.py",
            "@@ def greet():",
            "-    print('Hi')",
            "+    print('Hello')",
            "*** Delete File: gone",
        ),
        root,
    )
    assert tree(root) == {
        "deep/er/hello.txt": b"Hello",
        "src/new.py": b"def greet():\n    print('Hello')\n",
    }
    assert report.changes == (
        ("add", "deep/er/hello.txt"),
        ("delete", "old.py"),
        ("add", "src/new.py"),
        ("delete", "gone"),
    )
    assert report.fuzz == 0


def test_a_failing_later_operation_leaves_everything(root: Path) -> None:
    (root / "a").write_text("x\n")
    before = tree(root)
    with pytest.raises(PatchError, match="no file b"):
        apply_patch(patch("*** Update File: a", "-x", "+y", "*** Delete File: b"), root)
    assert tree(root) == before


def test_add_refuses_to_overwrite_and_move_too(root: Path) -> None:
    (root / "a").write_text("precious")
    (root / "b").write_text("other")
    with pytest.raises(PatchError, match="exists already"):
        apply_patch(patch("*** Add File: a", "+new"), root)
    with pytest.raises(PatchError, match="which exists"):
        apply_patch(patch("*** Update File: b", "*** Move to: a"), root)
    assert tree(root) == {"a": b"precious", "b": b"other"}


def test_several_operations_on_one_file(root: Path) -> None:
    (root / "a").write_text("1\n2\n3\n")
    apply_patch(
        patch(
            "*** Update File: a",
            "-3",
            "+three",
            "*** Update File: a",
            "-1",
            "+one",
            "*** Update File: a",
            "*** Move to: b",
            "*** Update File: b",
            "-2",
            "+two",
            "*** Add File: a",
            "+again",
        ),
        root,
    )
    assert tree(root) == {"a": b"again", "b": b"one\ntwo\nthree\n"}


@pytest.mark.parametrize(
    ("before", "lines", "after"),
    [
        (b"a\r\nb\r\nc", ("-b", "+B", "+B2"), b"a\r\nB\r\nB2\r\nc"),
        (b"a\r\nb", (" b", "+c"), b"a\r\nb\r\nc"),
        (b"a\nb", ("-b", "+c"), b"a\nc"),
        (b"a\nb\n", (" b", "+c", "*** End of File"), b"a\nb\nc\n"),
        (b"\xef\xbb\xbfa\nb\n", ("-a", "+A"), b"\xef\xbb\xbfA\nb\n"),
        (b"a\x0cb\nc\n", ("-c", "+d"), b"a\x0cb\nd\n"),
        ("x\u2028y\nz\n".encode(), ("-z", "+Z"), "x\u2028y\nZ\n".encode()),
        (b"caf\xe9\nz\n", ("-z", "+Z"), b"caf\xe9\nZ\n"),
        (b"a\nb\r\nc\n", ("-b", "+B"), b"a\nB\r\nc\n"),
        (b"", ("@@", "+a"), b"a\n"),
        (b"a\n", ("-a",), b""),
        (b"a \nb\n", (" a", "-b", "+B"), b"a \nB\n"),
    ],
)
def test_bytes_that_a_patch_leaves_alone(
    root: Path, before: bytes, lines: tuple[str, ...], after: bytes
) -> None:
    (root / "f").write_bytes(before)
    apply_patch(patch("*** Update File: f", *lines), root)
    assert (root / "f").read_bytes() == after


def test_typographic_context_matches_with_a_note_and_keeps_the_file(root: Path) -> None:
    (root / "f").write_text("it’s – here\nold\n")
    report = apply_patch(patch("*** Update File: f", " it's - here", "-old", "+new"), root)
    assert (root / "f").read_text() == "it’s – here\nnew\n"
    assert report.fuzz == 1000
    assert "typographic" in report.notes[0]


def test_dry_run_checks_and_writes_nothing(root: Path) -> None:
    report = apply_patch(patch("*** Add File: a", "+x"), root, dry_run=True)
    assert report.dry_run
    assert list(root.iterdir()) == []
    with pytest.raises(PatchError):
        apply_patch(patch("*** Delete File: nope"), root, dry_run=True)


def test_modes_stay_and_new_files_follow_the_umask(root: Path) -> None:
    script = root / "run.sh"
    script.write_text("a\n")
    script.chmod(0o750)
    saved = os.umask(0o027)
    try:
        apply_patch(patch("*** Update File: run.sh", "-a", "+b", "*** Add File: n", "+x"), root)
    finally:
        os.umask(saved)
    assert script.stat().st_mode & 0o777 == 0o750
    assert (root / "n").stat().st_mode & 0o777 == 0o640


def test_added_files_can_be_given_a_final_newline(root: Path) -> None:
    apply_patch(patch("*** Add File: a", "+x", "*** Add File: e"), root, final_newline=True)
    assert tree(root) == {"a": b"x\n", "e": b""}


def test_undo_goes_back_patch_by_patch(root: Path) -> None:
    (root / "a").write_text("1\n")
    apply_patch(patch("*** Update File: a", "-1", "+2"), root)
    apply_patch(patch("*** Delete File: a", "*** Add File: d/e/b", "+x"), root)
    undo_patch(root)
    assert tree(root) == {"a": b"2\n"}
    assert not (root / "d").exists()
    undo_patch(root)
    assert tree(root) == {"a": b"1\n"}
    with pytest.raises(PatchError, match="no patch to take back"):
        undo_patch(root)


def test_undo_refuses_over_a_later_edit(root: Path) -> None:
    (root / "a").write_text("1\n")
    apply_patch(patch("*** Update File: a", "-1", "+2"), root)
    (root / "a").write_text("3\n")
    with pytest.raises(PatchError, match="edited since"):
        undo_patch(root)
    assert (root / "a").read_text() == "3\n"


def test_twenty_patches_can_be_taken_back(root: Path) -> None:
    (root / "a").write_text("0")
    for number in range(25):
        apply_patch(patch("*** Update File: a", f"-{number}", f"+{number + 1}"), root)
    for _ in range(20):
        undo_patch(root)
    assert (root / "a").read_text() == "5"
    with pytest.raises(PatchError):
        undo_patch(root)


def test_a_planted_journal_cannot_write_outside_or_to_git(root: Path) -> None:
    folder = root / ".apply_patch" / "1-x.commit"
    folder.mkdir(parents=True)
    (folder / "after-0").write_text("evil")
    for path in ("../evil", ".git/hooks/post-commit", "/evil"):
        entry = {"path": path, "before": None, "after": "x", "before_mode": 0, "after_mode": 420}
        manifest = {"pops": None, "folders": [], "entries": [entry]}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(JournalError, match="damaged"):
            recover(root)
    assert tree(root) == {}


def test_the_root_must_exist_and_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="existing folder"):
        apply_patch(patch("*** Add File: a", "+x"), tmp_path / "nowhere")
