"""Stop texts across pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gptoss_serve.completions.stops import StopTexts

LETTERS = st.text(alphabet="ab", max_size=12)


@given(pieces=st.lists(LETTERS), stops=st.lists(LETTERS.filter(bool), max_size=3))
def test_any_cutting_gives_the_text_before_the_first_stop(
    pieces: list[str], stops: list[str]
) -> None:
    watcher = StopTexts(stops)
    out = "".join(watcher.feed(piece) for piece in pieces) + watcher.finish()
    text = "".join(pieces)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    # The stop text that is complete first ends the answer; of several, the one that began first.
    if not ends:
        assert out == text
        assert not watcher.hit
    else:
        assert watcher.hit
        assert not any(stop in out for stop in stops)
        assert text.startswith(out)
