"""Parts come in order, never overlap, and lose nothing, however a server mixes them."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss_serve.events import Event, PartDelta, PartDone, PartStarted
from gptoss_serve.upstream.offered import Offered
from gptoss_serve.upstream.parts import PartLine


def offered(number: int, *, kind: Any, text_field: str | None) -> Offered:
    return Offered(
        name=f"f{number}",
        recipient=f"functions.f{number}",
        kind=kind,
        description="",
        parameters={},
        text_field=text_field,
    )


KINDS = ["reasoning", "answer", "preamble", "call", "builtin", "freeform"]


# A loaded machine draws slowly; nothing here depends on how fast.
patient = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
PIECES = st.sampled_from(["a", "b ", '{"code": "', '"}', "é", "\n"])


@patient
@given(data=st.data())
def test_any_mixture_of_pieces(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    line = PartLine(first_index=3, citing=None)
    events: list[Event] = []
    texts = [""] * len(kinds)
    read: list[Any] = [str] * len(kinds)  # what is made of a text once it is whole
    for number, kind in enumerate(kinds):
        field = "code" if kind == "freeform" else None
        kind = "call" if kind == "freeform" else kind
        whom = offered(number, kind=kind, text_field=field) if kind in ("call", "builtin") else None
        events += line.start(number, kind, offered=whom)
        read[number] = whom.text if whom is not None else str
    order = data.draw(st.lists(st.integers(0, len(kinds) - 1), max_size=20))
    for number in order:
        text = data.draw(PIECES)
        texts[number] += text
        events += line.grow(number, text)
    for number in data.draw(st.permutations(range(len(kinds)))):
        events += line.end(number)
    events += line.end_all(complete=True)

    whole = [(reader(text), kind) for reader, text, kind in zip(read, texts, kinds, strict=True)]
    expected = [text for text, kind in whole if text or kind in KINDS[3:]]
    assert [event.text for event in events if isinstance(event, PartDone)] == expected
    is_open: int | None = None
    seen = 3
    said = ""
    for event in events:
        if isinstance(event, PartStarted):
            assert is_open is None
            assert event.index == seen
            is_open, said = event.index, ""
        elif isinstance(event, PartDelta):
            assert event.index == is_open
            said += event.text
        else:
            assert isinstance(event, PartDone)
            assert (event.index, event.text) == (is_open, said)
            is_open, seen = None, seen + 1
    assert line.index == seen
    assert len(line.messages) == len(expected)


@patient
@given(st.lists(PIECES).map("".join))
def test_freeform_text_survives_its_wrapping(text: str) -> None:
    whom = offered(0, kind="call", text_field="code")
    assert whom.text(whom.arguments(text)) == text
    assert whom.text("print(1)") == "print(1)", "raw text is taken as it is"
    assert whom.text('{"other": 1}') == '{"other": 1}'


def test_a_held_text_that_was_cut_is_shown_as_it_came() -> None:
    line = PartLine(first_index=0, citing=None)
    events = [
        *line.start("a", "builtin", offered=offered(0, kind="builtin", text_field="code")),
        *line.grow("a", '{"code": "1 + '),
        *line.end_all(complete=False),
    ]
    assert isinstance(events[-1], PartDone)
    assert (events[-1].text, events[-1].complete) == ('{"code": "1 + ', False)
    assert line.calls == []
