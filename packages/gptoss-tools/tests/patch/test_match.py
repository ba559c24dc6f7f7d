"""Where hunks are found, at which price, and what a failure says."""

import pytest

from gptoss_tools.errors import PatchError
from gptoss_tools.patch.grammar import Hunk, UpdateFile, parse_patch
from gptoss_tools.patch.match import Finder, Place


def hunks(*lines: str) -> tuple[Hunk, ...]:
    text = "\n".join(["*** Begin Patch", "*** Update File: f", *lines, "*** End Patch"])
    (update,) = parse_patch(text)
    assert isinstance(update, UpdateFile)
    return update.hunks


def places(file: list[str], *lines: str) -> list[Place]:
    finder = Finder(file, "f")
    return [finder.find(hunk) for hunk in hunks(*lines)]


@pytest.mark.parametrize(
    ("line", "fuzz"),
    [
        ("a = 'x' - 1", 0),
        ("a = 'x' - 1  ", 1),
        ("   a = 'x' - 1", 100),
        ("a = ‘x’ – 1", 1000),
        ("a\u00a0=\u2009'x' \u2212 1", 1000),
    ],
)
def test_price_of_loose_matches(line: str, fuzz: int) -> None:
    (place,) = places(["zero", "a = 'x' - 1", "end"], f"-{line}")
    assert (place.start, place.fuzz) == (1, fuzz)


def test_an_exact_match_further_down_beats_a_loose_one() -> None:
    (place,) = places(["  x", "x"], "-x")
    assert (place.start, place.fuzz) == (1, 0)


def test_headers_move_the_search_and_stack() -> None:
    file = ["class A:", "  def f():", "    pass", "class B:", "  def f():", "    pass", ""]
    assert places(file, "@@ class B:", "-    pass")[0].start == 5
    assert places(file, "@@ class B:", "@@   def f():", "-    pass")[0].start == 5
    assert places(file, "@@   def f():", "-    pass")[0].start == 2


def test_a_header_without_its_indent_costs_one() -> None:
    (place,) = places(["class B:", "  def f():", "    pass"], "@@ def f():", "-    pass")
    assert (place.start, place.fuzz) == (2, 1)


def test_an_unknown_header_is_passed_over() -> None:
    assert places(["x", "y"], "@@ def nowhere():", "-y")[0].start == 1


def test_a_header_repeated_as_context_is_found() -> None:
    (place,) = places(["def f():", "  pass"], "@@ def f():", " def f():", "-  pass")
    assert place.start == 0


def test_hunks_come_in_order() -> None:
    assert [place.start for place in places(["x", "x", "x"], "-x", "@@", "-x")] == [0, 1]
    with pytest.raises(PatchError, match="file order"):
        places(["a", "b"], "-b", "@@", "-a")


def test_end_of_file_prefers_the_tail() -> None:
    file = ["x", "y", "x", ""]
    assert places(file, "-x", "*** End of File")[0].start == 2
    assert places(file, "@@", "+new", "*** End of File")[0].start == 3
    (place,) = places(file, "-y", "*** End of File")
    assert (place.start, place.fuzz) == (1, 10_000)


def test_insertion_without_context_goes_to_the_cursor() -> None:
    assert places(["a", "b"], "@@", "+top")[0].start == 0
    assert places(["a", "b"], "@@ a", "+below a")[0].start == 1


def test_a_bare_separator_line_is_not_insisted_on() -> None:
    (place,) = places(["a", "b"], " a", "+x", "")
    assert (place.start, place.stop, place.dropped) == (0, 1, 1)


def test_failure_shows_the_line_and_the_nearest_text() -> None:
    file = [f"line {number}" for number in range(50)]
    with pytest.raises(PatchError) as error:
        places(file, " line 30", " line thirty-one", "-line 32")
    text = str(error.value)
    assert "Patch line 4 does not match:  line thirty-one" in text
    assert "   31  line 30" in text
    assert "   33  line 32" in text
