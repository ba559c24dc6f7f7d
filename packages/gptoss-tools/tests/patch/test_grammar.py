"""The patch language: what it accepts and how it says what is wrong."""

import re

import pytest

from gptoss_tools.errors import PatchError
from gptoss_tools.patch.grammar import AddFile, DeleteFile, UpdateFile, parse_patch


def patch(*lines: str) -> str:
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


def test_every_operation() -> None:
    ops = parse_patch(
        patch(
            "*** Add File: a b.txt",
            "+one",
            "+",
            "*** Update File: src/app.py",
            "*** Move to: src/main.py",
            "@@ class A:",
            "@@   def f():",
            " keep",
            "-old",
            "+new",
            "",
            "*** End of File",
            "*** Delete File: gone",
        )
    )
    add, update, delete = ops
    assert isinstance(add, AddFile)
    assert (add.path, add.lines) == ("a b.txt", ("one", ""))
    assert isinstance(update, UpdateFile)
    assert update.move_to == "src/main.py"
    (hunk,) = update.hunks
    assert hunk.headers == ("class A:", "  def f():")
    assert [(line.kind, line.text) for line in hunk.lines] == [
        (" ", "keep"),
        ("-", "old"),
        ("+", "new"),
        (" ", ""),
    ]
    assert hunk.end_of_file
    assert hunk.old == ["keep", "old", ""]
    assert delete == DeleteFile(path="gone", number=14)


def test_first_hunk_needs_no_header_and_a_pure_rename_no_hunk() -> None:
    (update,) = parse_patch(patch("*** Update File: a", "-x", "+y"))
    assert isinstance(update, UpdateFile)
    assert len(update.hunks) == 1
    (rename,) = parse_patch(patch("*** Update File: a", "*** Move to: b"))
    assert isinstance(rename, UpdateFile)
    assert (rename.hunks, rename.move_to) == ((), "b")


def test_crlf_patches_and_blank_lines_around_are_read() -> None:
    text = "\n\n" + patch("*** Add File: a", "+x").replace("\n", "\r\n") + "\r\n\n"
    assert parse_patch(text) == parse_patch(patch("*** Add File: a", "+x"))


def test_an_empty_add_makes_no_line() -> None:
    (add,) = parse_patch(patch("*** Add File: a"))
    assert isinstance(add, AddFile)
    assert add.lines == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1"),
        ("hello", "line 1"),
        ("*** Begin Patch\n*** Add File: a\n+x", "stops before"),
        ("*** Begin Patch\n*** Add File: a\n+x\n*** End Patch\njunk", "line 5"),
        (patch(), "no file operation"),
        (patch("*** Rename File: a"), "line 2"),
        (patch("*** Add File: "), "names no file"),
        (patch("*** Add File: a", "x"), "starts with `+`"),
        (patch("*** Add File: a", ""), "starts with `+`"),
        (patch("*** Update File: a"), "changes nothing"),
        (patch("*** Update File: a", "@@"), "line 3: the hunk is empty"),
        (patch("*** Update File: a", "@@", "*** End of File"), "hunk is empty"),
        (patch("*** Update File: a", "@@", "x"), "line 4"),
        (patch("*** Update File: a", "@@", " x", "*** Rename: b"), "line 5"),
        (patch("*** Update File: a", " x", "*** Move to: b"), "line 4"),
        (patch("*** Delete File: a", "+x"), "line 3"),
    ],
)
def test_errors_name_the_line(text: str, words: str) -> None:
    with pytest.raises(PatchError, match=re.escape(words)):
        parse_patch(text)
