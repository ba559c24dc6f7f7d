"""Events are read the same wherever the bytes are cut."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss_serve import sse
from gptoss_serve.sse import EventTooLong, event_data

patient = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


def read(body: bytes, cuts: list[int]) -> list[str]:
    """The data of the events of a body that comes in pieces."""
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]

    async def chunks() -> AsyncIterator[bytes]:
        for start, end in itertools.pairwise(places):
            yield body[start:end]

    async def collect() -> list[str]:
        return [data async for data in event_data(chunks())]

    return asyncio.run(collect())


TEXTS = st.lists(st.sampled_from(["a", "é", "\u2028", "\x85", "\n", "日", '"']), max_size=6)


@patient
@given(
    texts=st.lists(TEXTS.map("".join), max_size=4),
    cuts=st.lists(st.integers(0, 10_000), max_size=6),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.sampled_from(["data: [DONE]", "data:[DONE]", ""]),
)
def test_any_cuts_and_line_ends(texts: list[str], cuts: list[int], end: str, last: str) -> None:
    datas = [json.dumps(text, ensure_ascii=False) for text in texts]
    lines = [line for data in datas for line in ("event: x", f"data: {data}", ": alive", "")]
    body = end.join([*lines, last, "", "data: late", ""])
    expected = [*datas, *([] if last else ["late"])]
    assert read(body.encode(), cuts) == expected


def test_an_event_of_several_lines_and_one_without_an_end() -> None:
    assert read(b"data: a\ndata: b\n\ndata:c", []) == ["a\nb", "c"]


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: x\n" * 100])
def test_an_event_without_end_is_not_read_on(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(sse, "MOST_BYTES", 10_000)
    short = b"data: short\n\n" * 1000  # far more in all
    assert len(read(short, [])) == 1000
    with pytest.raises(EventTooLong):
        read(short + b"data: " + piece * 1000, [len(short) + 100 * at for at in range(1000)])
