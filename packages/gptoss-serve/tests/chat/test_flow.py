"""Text that comes in pieces is wrapped at words, however it was cut."""

from __future__ import annotations

import io
import itertools

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from gptoss_serve.chat.flow import Flow


def shown(pieces: list[str], *, width: int | None, prefix: str = "") -> list[str]:
    out = io.StringIO()
    flow = Flow(Console(file=out, width=500), prefix=Text(prefix), width=width)
    for piece in pieces:
        flow.put(Text(piece))
    flow.end()
    return out.getvalue().split("\n")


def test_words_stay_whole_and_lines_are_framed() -> None:
    pieces = ["A lo", "ng line tha", "t goes on\n", "\nand a", "notherone"]
    expected = ["│ A long", "│ line that", "│ goes on", "│ ", "│ and", "│ anotherone", ""]
    assert shown(pieces, width=12, prefix="│ ") == expected


def test_a_word_longer_than_the_line_is_cut_and_wide_letters_count_twice() -> None:
    assert shown(["x" * 20], width=8) == ["x" * 8, "x" * 8, "xxxx", ""]
    assert shown(["京都の天気は晴れ"], width=8) == ["京都の天", "気は晴れ", ""]


def test_code_is_left_to_the_terminal() -> None:
    text = "two words\n```\nlong line of code\n```\ntwo words"
    assert shown([text], width=8) == [
        *("two", "words", "```", "long line of code", "```", "two", "words", "")
    ]


def test_pipes_get_the_text_as_it_is() -> None:
    assert shown(["a  long\tli", "ne  \n\n", "x"], width=None) == ["a  long\tline  ", "", "x", ""]


@given(st.text(alphabet="ab 京é\n", max_size=80), st.lists(st.integers(0, 80)), st.integers(8, 30))
def test_however_it_is_cut_nothing_is_lost_and_nothing_sticks_out(
    text: str, cuts: list[int], width: int
) -> None:
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    lines = shown(pieces, width=width)
    assert lines == shown([text], width=width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(cell_len(line.rstrip()) <= width for line in lines)
