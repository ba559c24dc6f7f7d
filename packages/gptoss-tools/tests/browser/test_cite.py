"""Citations: whole, in pieces, unfinished, unknown."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_tools.browser.cite import CitationNormalizer

URLS = {0: "https://example.org/a%20b", 7: "https://other.example:8080/x"}


def normalizer() -> CitationNormalizer:
    return CitationNormalizer(lambda cursor: URLS.get(cursor, ""))


def whole(text: str) -> tuple[str, list[object]]:
    one = normalizer()
    start, citations = one.feed(text)
    end, more = one.finish()
    return start + end, [*citations, *more]


def test_known_cursors_become_links_with_positions() -> None:
    text, citations = whole("As shown【0†L3-L5】, and 【7†L1】.")
    assert text == (
        "As shown ([example.org](https://example.org/a%20b)) , "
        "and  ([other.example:8080](https://other.example:8080/x)) ."
    )
    for citation in citations:
        data = citation.to_json()  # type: ignore[attr-defined]
        assert data["type"] == "url_citation"
        link = text[data["start_index"] : data["end_index"]]
        assert link == f" ([{data['title']}]({data['url']})) "


@pytest.mark.parametrize(
    "text", ["【3†L1】", "【†L1】", "【0†】", "【0 L1】", "【x†L1】", "】【", "【0†a†b†c】"]
)
def test_what_is_no_known_citation_stays(text: str) -> None:
    assert whole(text) == (text, [])


def test_an_unfinished_bracket_is_held_back_and_given_back() -> None:
    one = normalizer()
    assert one.feed("see 【0†L")[0] == "see "
    assert one.holds_back
    assert one.feed("3】!")[0] == " ([example.org](https://example.org/a%20b)) !"
    assert one.feed("and 【0†")[0] == "and "
    assert one.finish() == ("【0†", [])


def test_a_bracket_that_is_never_closed_does_not_stall() -> None:
    one = normalizer()
    given_out = one.feed("【0†" + "x" * 300)[0]
    assert given_out.startswith("【0†xxx")
    assert one.feed("【0†a\nb")[0] == "【0†a\nb"


@given(
    st.lists(
        st.sampled_from(
            [
                "a",
                " ",
                "【",
                "】",
                "†",
                "0",
                "7",
                "3",
                "L1",
                "【0†L1】",
                "【7†L2-L4】",
                "【9†L1】",
                "é",
            ]
        ),
        max_size=30,
    ),
    st.integers(),
)
def test_pieces_give_the_same_as_the_whole(parts: list[str], seed: int) -> None:
    text = "".join(parts)
    chance = random.Random(seed)
    one = normalizer()
    streamed, citations, position = "", [], 0
    while position < len(text):
        size = chance.randint(1, 4)
        piece, more = one.feed(text[position : position + size])
        streamed += piece
        citations += more
        position += size
    piece, more = one.finish()
    assert (streamed + piece, citations + more) == whole(text)
