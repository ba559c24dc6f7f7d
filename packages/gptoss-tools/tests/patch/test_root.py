"""Paths that try to leave the folder."""

import os
from pathlib import Path

import pytest

from gptoss_tools.errors import PatchError
from gptoss_tools.patch.apply import apply_patch


def add(path: str) -> str:
    return f"*** Begin Patch\n*** Add File: {path}\n+evil\n*** End Patch"


def update(path: str) -> str:
    return f"*** Begin Patch\n*** Update File: {path}\n-secret\n+evil\n*** End Patch"


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "./../evil",
        ".git/hooks/post-commit",
        "sub/.GIT/config",
        ".apply_patch/x",
        "dir/",
        ".",
        "a\x00b",
        "a\x1bb",
        "x" * 300,
        "x/" * 2500 + "x",
    ],
)
def test_refused_paths(root: Path, path: str) -> None:
    with pytest.raises(PatchError):
        apply_patch(add(path), root)
    assert [p for p in root.rglob("*") if p.is_file() and ".apply_patch" not in p.parts] == []


def test_an_absolute_path_below_the_root_is_taken_as_relative(root: Path) -> None:
    apply_patch(add(str(root / "a")), root)
    assert (root / "a").read_text() == "evil"


def test_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("secret")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "f")
    (root / "dangling").symlink_to(outside / "new")
    for text in (add("folder/new"), update("folder/f"), update("file"), add("dangling")):
        with pytest.raises(PatchError):
            apply_patch(text, root)
    lines = ["*** Add File: a", "+x", "*** Update File: a", "*** Move to: folder/a"]
    move = "\n".join(["*** Begin Patch", *lines, "*** End Patch"])
    with pytest.raises(PatchError):
        apply_patch(move, root)
    assert (outside / "f").read_text() == "secret"
    assert sorted(os.listdir(outside)) == ["f"]


def test_a_linked_state_folder_is_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / ".apply_patch").symlink_to(outside)
    with pytest.raises(PatchError, match="not a plain folder"):
        apply_patch(add("a"), root)
    assert os.listdir(outside) == []


def test_a_hard_link_is_cut_instead_of_written_through(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    os.link(outside, root / "f")
    apply_patch(update("f"), root)
    assert outside.read_text() == "secret"
    assert (root / "f").read_text() == "evil"


def test_special_files_are_refused_without_waiting(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    with pytest.raises(PatchError, match="not a regular file"):
        apply_patch(update("pipe"), root)
    with pytest.raises(PatchError, match="a folder"):
        apply_patch(update("folder"), root)


def test_a_file_cannot_become_a_folder_in_one_patch(root: Path) -> None:
    (root / "a").write_text("x")
    for lines in (
        "*** Add File: a/b\n+x",
        "*** Delete File: a\n*** Add File: a/b\n+x",
        "*** Add File: c\n+x\n*** Add File: c/d\n+x",
    ):
        with pytest.raises(PatchError):
            apply_patch(f"*** Begin Patch\n{lines}\n*** End Patch", root)
    assert (root / "a").read_text() == "x"
