"""Random trees and random edits: rendered as a patch and applied they give the edited tree."""

import difflib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_tools.errors import PatchError
from gptoss_tools.patch.apply import apply_patch, undo_patch

# Every patch is synced to disk several times; memory is quick at that.
SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else None
NAMES = st.sampled_from(["a", "b.txt", "d/c.py", "d/e/ü f", "d/g", "-x", "@@", "h***"])
# Few different lines, so that context repeats and the place has to be found by order.
LINES = st.lists(
    st.sampled_from(
        ["", "x", "  x", "y ", "+", "-", "@@", "*** End Patch", "a\x0cb", "é–“”", "\t"]
    ),
    max_size=12,
)
TREES = st.dictionaries(NAMES, LINES, max_size=4)


def write(root: Path, tree: dict[str, list[str]]) -> None:
    for name, lines in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("\n".join(lines).encode())


def read(root: Path) -> dict[str, list[str]]:
    return {
        str(path.relative_to(root)): path.read_bytes().decode().split("\n")
        for path in root.rglob("*")
        if path.is_file() and ".apply_patch" not in path.parts
    }


def hunks(old: list[str], new: list[str]) -> Iterator[str]:
    """One hunk with the whole file as context: the place is never in doubt."""
    yield "@@"
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            yield from (f" {line}" for line in old[i1:i2])
        else:
            yield from (f"-{line}" for line in old[i1:i2])
            yield from (f"+{line}" for line in new[j1:j2])
    yield "*** End of File"


def render(old: dict[str, list[str]], new: dict[str, list[str]]) -> str:
    lines = ["*** Begin Patch"]
    for name in sorted(old.keys() - new.keys()):
        lines.append(f"*** Delete File: {name}")
    for name in sorted(new.keys() - old.keys()):
        lines += [f"*** Add File: {name}", *(f"+{line}" for line in new[name])]
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            lines += [f"*** Update File: {name}", *hunks(old[name], new[name])]
    return "\n".join([*lines, "*** End Patch"])


def plain(tree: dict[str, list[str]]) -> dict[str, list[str]]:
    """A file without lines and a file with one empty line are the same bytes."""
    return {name: lines or [""] for name, lines in tree.items()}


@settings(max_examples=100, deadline=None)
@given(TREES, TREES)
def test_applied_is_edited_and_undo_goes_back(
    old: dict[str, list[str]], new: dict[str, list[str]]
) -> None:
    old, new = plain(old), plain(new)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        root = Path(folder)
        write(root, old)
        if old == new:
            return
        apply_patch(render(old, new), root)
        assert read(root) == new
        undo_patch(root)
        assert read(root) == old


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab\x0c\u2028é ", max_size=4), min_size=2, max_size=30),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.data(),
)
def test_line_ends_bom_and_final_newline_survive(
    lines: list[str], ending: str, bom: bool, data: st.DataObject
) -> None:
    lines = [f"{number}{line}" for number, line in enumerate(lines)]
    index = data.draw(st.integers(0, len(lines) - 1))
    edited = [*lines[:index], "NEW", "NEWER", *lines[index + 1 :]]
    last = data.draw(st.sampled_from(["", ending]))
    mark = b"\xef\xbb\xbf" if bom else b""
    patch = f"*** Begin Patch\n*** Update File: f\n@@\n-{lines[index]}\n+NEW\n+NEWER\n*** End Patch"
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        path = Path(folder, "f")
        path.write_bytes(mark + (ending.join(lines) + last).encode())
        apply_patch(patch, folder)
        assert path.read_bytes() == mark + (ending.join(edited) + last).encode()


PIECES = [
    "*** Begin Patch",
    "*** End Patch",
    "*** Add File: ",
    "*** Add File: ../evil",
    "*** Add File: .git/x",
    "*** Add File: link/evil",
    "*** Delete File: a",
    "*** Delete File: ..",
    "*** Update File: d/c.py",
    "*** Update File: link",
    "*** Move to: ../out",
    "*** Move to: /etc/out",
    "*** Move to: link/x",
    "*** End of File",
    *("***", "@@", "@@ x", " x", "-x", "+x", "", "\x00", "\ud800"),
]


def mutated(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    for _ in range(chance.randint(1, 4)):
        index = chance.randrange(len(lines) + 1)
        match chance.randrange(5):
            case 0:
                lines.insert(index, chance.choice(PIECES))
            case 1 if lines:
                del lines[min(index, len(lines) - 1)]
            case 2 if index < len(lines):
                lines[index] = chance.choice(PIECES)
            case 3 if index < len(lines) and lines[index]:
                cut = chance.randrange(len(lines[index]))
                lines[index] = (
                    lines[index][:cut] + chance.choice("+-@* \t\r\x0c") + lines[index][cut:]
                )
            case _:
                chance.shuffle(lines)
    return "\n".join(lines)


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and ".apply_patch" not in path.parts
    }


@pytest.fixture
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        yield Path(folder)


@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_mutated_patches_never_half_write_nor_leave_the_root(
    scratch: Path, seed: int
) -> None:
    chance = random.Random(seed)
    old = {"a": ["x", "y"], "d/c.py": ["def f():", "  x", "", "  y", ""], "b": ["1"]}
    new = {"a": ["x", "z"], "d/c.py": ["def f():", "  x", "  w", ""], "n": ["new", ""]}
    patch = render(old, new)
    outside = scratch / "outside"
    applied = 0
    for _ in range(100):
        root = scratch / "root"
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(outside, ignore_errors=True)
        outside.mkdir()
        (outside / "x").write_text("x")
        write(root, old)
        os.symlink(outside, root / "link")
        before = everything(root)
        text = mutated(patch, chance)
        try:
            report = apply_patch(text, root)
        except PatchError:
            assert everything(root) == before
        else:
            applied += 1
            changed = {path for _, path in report.changes}
            after = everything(root)
            assert {
                p for p in before.keys() | after.keys() if before.get(p) != after.get(p)
            } == changed
            undo_patch(root)
            assert everything(root) == before
        assert everything(outside) == {"x": b"x"}
        assert sorted(os.listdir(scratch)) == ["outside", "root"]
    assert applied < 100
