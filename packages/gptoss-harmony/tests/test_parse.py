"""The parser equals openai-harmony on well-formed answers and loses nothing of any other."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import openai_harmony
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai_harmony import Author, Message, Role, TextContent

from gptoss_harmony import tokens as special
from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.errors import ParseError
from gptoss_harmony.events import Event, MessageDone, MessageStarted, Repaired, TextDelta
from gptoss_harmony.header import Header
from gptoss_harmony.parse import HEADER_LIMIT, StreamParser

ENCODING = load_encoding()


def tokens_of(text: str) -> list[int]:
    return ENCODING.encode(text, allowed_special="all")


def run(parser: StreamParser, tokens: Sequence[int]) -> list[Event]:
    events = [event for token in tokens for event in parser.process(token)]
    return [*events, *parser.finish()]


def parse(
    text: str, role: Role | None = Role.ASSISTANT, **options: Any
) -> tuple[list[Message], list[Repaired]]:
    parser = StreamParser(ENCODING, role, **options)
    events = run(parser, tokens_of(text))
    return parser.messages, [event for event in events if isinstance(event, Repaired)]


def fields(message: Message) -> tuple[str | None, str | None, str | None, str]:
    assert isinstance(message.content[0], TextContent)
    return message.channel, message.recipient, message.content_type, message.content[0].text


# Well-formed answers.

WORD = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
TEXT = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.lists(st.sampled_from(["<|end|>", "<|start|>", "👩‍🚀", "é", "\n", "{}"]), max_size=5).map(
        "".join
    ),
)
CALLS = st.builds(
    Message,
    author=st.just(Author(role=Role.ASSISTANT)),
    content=st.builds(TextContent, text=TEXT).map(lambda content: [content]),
    channel=st.sampled_from(["commentary", "analysis"]),
    recipient=st.one_of(WORD.map("browser.{}".format), st.just("python")),
    content_type=st.sampled_from([None, "<|constrain|>json", "code", "json"]),
)
SPOKEN = st.builds(
    Message,
    author=st.sampled_from([Author(role=role) for role in Role if role != Role.TOOL]),
    content=st.builds(TextContent, text=TEXT).map(lambda content: [content]),
    channel=st.sampled_from([None, "analysis", "commentary", "final"]),
)
REPLIES = st.builds(
    Message,
    author=WORD.map(lambda word: Author(role=Role.TOOL, name=f"functions.{word}")),
    content=st.builds(TextContent, text=TEXT).map(lambda content: [content]),
    channel=st.sampled_from([None, "commentary", "analysis"]),
    recipient=st.just("assistant"),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(CALLS, SPOKEN, REPLIES), max_size=5), st.booleans())
def test_well_formed_answers_equal_openai_harmony(messages: list[Message], strict: bool) -> None:
    tokens = [token for message in messages for token in ENCODING.render(message)]
    reference = openai_harmony.StreamableParser(ENCODING.harmony, None)
    parser = StreamParser(ENCODING, strict=strict)
    for token in tokens:
        reference.process(token)
        events = parser.process(token)
        assert not any(isinstance(event, Repaired) for event in events)
        assert len(parser.messages) == len(reference.messages)
    reference.process_eos()
    assert parser.finish() == ()
    assert [m.to_dict() for m in parser.messages] == [m.to_dict() for m in reference.messages]
    assert [m.to_dict() for m in parser.messages] == [m.to_dict() for m in messages]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, special.FIRST_SPECIAL - 1), max_size=40),
    st.sampled_from(sorted(special.MESSAGE_ENDS)),
)
@example(tokens_of("👩‍🚀")[:1], special.END)
def test_any_bytes_decode_as_in_openai_harmony(content: list[int], end: int) -> None:
    tokens = [*tokens_of("<|channel|>final<|message|>"), *content, end]
    expected = ENCODING.harmony.parse_messages_from_completion_tokens(tokens, Role.ASSISTANT)
    parser = StreamParser(ENCODING, Role.ASSISTANT)
    events = run(parser, tokens)
    assert [m.to_dict() for m in parser.messages] == [m.to_dict() for m in expected]
    deltas = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert deltas == fields(expected[0])[3]


def test_events_of_one_answer() -> None:
    parser = StreamParser(ENCODING, "assistant")
    events = run(parser, tokens_of("<|channel|>final<|message|>Hi there<|return|>"))
    header = Header("assistant", channel="final")
    message = Message.from_role_and_content(Role.ASSISTANT, "Hi there").with_channel("final")
    assert events == [
        MessageStarted(0, header),
        TextDelta(0, header, "Hi"),
        TextDelta(0, header, " there"),
        MessageDone(0, message, special.RETURN),
    ]
    assert parser.finish() == ()
    assert parser.position == 6


def test_a_character_split_over_tokens_comes_whole() -> None:
    parser = StreamParser(ENCODING, "assistant")
    answer = tokens_of("<|channel|>final<|message|>") + [
        ENCODING.token_bytes.index(bytes([byte])) for byte in "é👩".encode()
    ]
    deltas = [event.text for event in run(parser, answer) if isinstance(event, TextDelta)]
    assert deltas == ["é", "👩"]


def test_prefill_starts_inside_the_message() -> None:
    prefill = tokens_of("<|channel|>final<|message|>")
    parser = StreamParser(ENCODING, "assistant", prefill=prefill)
    assert parser.current_header == Header("assistant", channel="final")
    first = parser.process(tokens_of("Hi")[0])
    assert [type(event) for event in first] == [MessageStarted, TextDelta]
    assert parser.current_content == "Hi"
    assert parser.position == 1
    parser.process(special.RETURN)
    assert [fields(message) for message in parser.messages] == [("final", None, None, "Hi")]


# What models get wrong: (answer after `<|start|>assistant`, message fields, repairs).

FINAL = ("final", None, None, "ok")
CALL = ("commentary", "functions.f", "<|constrain|>json", "{}")
THOUGHT = ("analysis", None, None, "hm")
JSON = "<|constrain|>json<|message|>{}<|call|>"
REPAIRS: list[tuple[str, list[tuple[Any, ...]], list[str]]] = [
    # doubled parts
    (
        f"<|channel|>commentary<|channel|>commentary to=functions.f {JSON}",
        [CALL],
        ["doubled_channel"],
    ),
    (
        f"<|channel|>analysis<|channel|>commentary to=functions.f {JSON}",
        [CALL],
        ["doubled_channel"],
    ),
    (f" to=functions.f<|channel|>commentary to=functions.f {JSON}", [CALL], ["doubled_recipient"]),
    ("assistantassistant<|channel|>final<|message|>ok<|return|>", [FINAL], ["doubled_role"]),
    ("assistant assistant<|channel|>final<|message|>ok<|return|>", [FINAL], ["doubled_role"]),
    ("<|channel|>final<|message|><|message|>ok<|return|>", [FINAL], ["doubled_message"]),
    ("<|start|>assistant<|channel|>final<|message|>ok<|return|>", [FINAL], ["doubled_start"]),
    # missing parts
    (
        "<|channel|>analysis<|message|>hm<|end|>assistant<|channel|>final<|message|>ok<|return|>",
        [THOUGHT, FINAL],
        ["missing_start"],
    ),
    (
        "<|channel|>analysis<|message|>hm<|end|><|channel|>final<|message|>ok<|return|>",
        [THOUGHT, FINAL],
        ["missing_start"],
    ),
    (
        "<|channel|>analysis<|message|>hm<|end|><|start|><|channel|>final<|message|>ok<|return|>",
        [THOUGHT, FINAL],
        ["missing_role"],
    ),
    (
        "<|channel|>analysis<|message|>hm<|start|>assistant<|channel|>final<|message|>ok<|return|>",
        [THOUGHT, FINAL],
        ["missing_end"],
    ),
    (
        "<|channel|>analysis<|message|>hm<|channel|>final<|message|>ok<|return|>",
        [THOUGHT, FINAL],
        ["missing_end"],
    ),
    (
        "<|channel|>analysis<|message|>hm<|channel|>x<|channel|>final<|message|>ok<|return|>",
        [THOUGHT, FINAL],
        ["missing_end", "doubled_channel"],
    ),
    ("<|channel|>final ok<|return|>", [FINAL], ["missing_message"]),
    (
        '<|channel|>commentary to=functions.f <|constrain|>json{"a": 1}<|call|>',
        [("commentary", "functions.f", "<|constrain|>json", '{"a": 1}')],
        ["missing_message"],
    ),
    ("<|channel|>analysis<|end|>", [("analysis", None, None, "")], ["missing_message"]),
    ("I must refuse.", [("final", None, None, "I must refuse.")], ["missing_header"]),
    ("I must refuse.<|return|>", [("final", None, None, "I must refuse.")], ["missing_header"]),
    (" to do: x", [("final", None, None, " to do: x")], ["missing_header"]),
    # truncated
    ("<|channel|>ana", [], ["truncated_header"]),
    ("<|channel|>commentary to=functions.f <|constrain|>js", [], ["truncated_header"]),
    ("<|channel|>final<|message|>ok", [FINAL], []),
    # addresses
    (f"<|channel|>analysis to=functions.f {JSON}", [CALL], ["call_on_analysis"]),
    (f"<|channel|>commentary to=f {JSON}", [CALL], ["function_name"]),
    (f"<|channel|>commentary f {JSON}", [CALL], ["function_name"]),
    (
        f"<|channel|>commentary to=functions.python {JSON}",
        [("commentary", "python", *CALL[2:])],
        ["function_name"],
    ),
    (f"<|channel|>commentary to= functions.f {JSON}", [CALL], ["word_breaks"]),
    (f"<|channel|>commentaryto=functions.f {JSON}", [CALL], ["word_breaks"]),
    (
        "<|channel|>commentary <|constrain|>json to=functions.f<|message|>{}<|call|>",
        [CALL],
        ["header_order"],
    ),
    (
        "commentary to=functions.f<|message|>{}<|call|>",
        [("commentary", "functions.f", None, "{}")],
        ["word_breaks"],
    ),
    ("<|channel|><|message|>ok<|return|>", [(None, None, None, "ok")], ["empty_channel"]),
    ("<|channel|> final<|message|>ok<|return|>", [FINAL], ["word_breaks"]),
    (
        "<|channel|>final a b c d<|message|>ok<|return|>",
        [("final", "a", "d", "ok")],
        ["extra_words"],
    ),
    # ends
    ("<|channel|>final<|message|>ok<|return|><|end|>", [FINAL], ["stray_end"]),
    ("<|channel|>final<|message|>ok<|endoftext|>", [FINAL], ["end_of_text"]),
    (
        "<|channel|>analysis<|message|>hm<|end|>\n<|start|>assistant<|channel|>final<|message|>ok",
        [THOUGHT, FINAL],
        ["missing_start", "stray_text"],
    ),
]


@pytest.mark.parametrize(("answer", "messages", "kinds"), REPAIRS)
def test_repairs(answer: str, messages: list[tuple[Any, ...]], kinds: list[str]) -> None:
    if answer.startswith("commentary to="):  # the role came glued: ` assistantcommentary`
        found, repairs = parse("<|start|>assistant" + answer, None, functions=["f"])
    else:
        found, repairs = parse(answer, functions=["f"])
    assert [fields(message) for message in found] == messages
    assert [repair.kind for repair in repairs] == kinds
    assert {message.author.role for message in found} <= {Role.ASSISTANT}


def test_markers_that_start_no_header_stay_in_the_text() -> None:
    words = "a <|start|> b <|channel|> c <|message|> d<|constrain|>e"
    found, repairs = parse(f"<|channel|>final<|message|>{words}<|return|>")
    assert fields(found[0])[3] == words
    assert not repairs


def test_without_known_functions_names_are_taken_as_they_are() -> None:
    found, repairs = parse("<|channel|>commentary to=get_weather <|constrain|>json<|message|>{}")
    assert found[0].recipient == "get_weather"
    assert not repairs


def test_a_text_without_header_streams_before_it_ends() -> None:
    parser = StreamParser(ENCODING, "assistant")
    words = tokens_of("word " * (HEADER_LIMIT + 50))
    events = [event for token in words for event in parser.process(token)]
    assert sum(isinstance(event, TextDelta) for event in events) > 40
    parser.finish()
    assert fields(parser.messages[0]) == ("final", None, None, "word " * (HEADER_LIMIT + 50))


@pytest.mark.parametrize("role", [None, "assistant"])
@pytest.mark.parametrize("words", range(HEADER_LIMIT - 6, HEADER_LIMIT + 2))
def test_a_long_text_without_a_header_keeps_every_character(words: int, role: str | None) -> None:
    text = " word" * words + "🦩𓀀 and more"  # characters of two and of four tokens
    parser = StreamParser(ENCODING, role)
    run(parser, tokens_of(text))
    assert fields(parser.messages[0])[3] == text


# Strict mode.


@pytest.mark.parametrize(
    ("answer", "position"),
    [
        ("<|channel|>final<|message|>ok<|end|>junk", 5),
        ("<|channel|>final", 2),
        ("<|channel|><|message|>ok", 1),
        ("assistantassistant<|message|>ok", 2),
        ("<|channel|>commentary to=a to=b<|message|>ok", 7),
        ("<|channel|>commentary<|channel|>commentary<|message|>ok", 6),
    ],
)
def test_strict_mode_says_where_and_what_to_do(answer: str, position: int) -> None:
    tokens = tokens_of(answer)
    with pytest.raises(ParseError, match=r"token \d+: .*; StreamParser\(strict=False\)") as caught:
        run(StreamParser(ENCODING, "assistant", strict=True), tokens)
    assert str(caught.value).startswith(f"token {position}: ")
    assert StreamParser(ENCODING, "assistant").finish() == ()  # and the other mode recovers
    run(StreamParser(ENCODING, "assistant"), tokens)


@pytest.mark.parametrize("token", [-1, special.LAST_SPECIAL + 1, 10**9])
def test_an_id_that_is_no_token(token: int) -> None:
    tokens = [*tokens_of("<|channel|>final<|message|>a"), token, *tokens_of("b")]
    with pytest.raises(ParseError, match=f"{token} is not a token"):
        run(StreamParser(ENCODING, "assistant", strict=True), tokens)
    parser = StreamParser(ENCODING, "assistant")
    run(parser, tokens)
    assert fields(parser.messages[0])[3] == "a\ufffdb"


# Fuzz: nothing raises, nothing is lost.

MARKERS = list(special.SPECIAL_TOKENS.values())
HOSTILE = st.one_of(
    st.sampled_from(MARKERS),
    st.sampled_from(
        [t for text in ("assistant", " to=functions.f", "final", "analysis", "json", " ", "\n")
         for t in tokens_of(text)]
    ),
    st.integers(0, special.FIRST_SPECIAL - 1),
    st.integers(0, special.LAST_SPECIAL),
)  # fmt: skip


def characters(tokens: Sequence[int]) -> Counter[str]:
    """What the ordinary tokens spell; bytes with a marker between them are no character."""
    runs = itertools.groupby(tokens, key=lambda token: token < special.FIRST_SPECIAL)
    text = "".join(ENCODING.decode(list(run)) for ordinary, run in runs if ordinary)
    return Counter(c for c in text if c not in "\ufffd" and not c.isspace())


def accounted(parser: StreamParser, events: list[Event]) -> Counter[str]:
    """Characters in texts, header fields and repairs; roles and `to=` are structure."""
    count: Counter[str] = Counter()
    for message in parser.messages:
        header = (message.channel, message.recipient, message.content_type, message.author.name)
        for part in (*header, fields(message)[3]):
            count.update(part or "")
    for event in events:
        if isinstance(event, Repaired):
            count.update(event.text + event.problem)
        elif isinstance(event, MessageStarted):
            count.update("to=:" + event.role)
    return count


@settings(max_examples=250, deadline=None)
@given(
    st.lists(HOSTILE, max_size=40),
    st.sampled_from([None, Role.ASSISTANT]),
    st.sampled_from([None, ["f"]]),
)
def test_any_tokens_are_survived(
    tokens: list[int], role: Role | None, functions: list[str] | None
) -> None:
    parser = StreamParser(ENCODING, role, functions=functions)
    events = run(parser, tokens)
    missing = characters(tokens).keys() - accounted(parser, events).keys()
    assert not missing
    done = [event for event in events if isinstance(event, MessageDone)]
    assert [event.index for event in done] == list(range(len(parser.messages)))
    texts = [""] * len(done)
    for event in events:
        if isinstance(event, TextDelta):
            texts[event.index] += event.text
    assert texts == [fields(message)[3] for message in parser.messages]
    assert parser.finish() == ()
    with contextlib.suppress(ParseError):
        run(StreamParser(ENCODING, role, strict=True), tokens)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(CALLS, SPOKEN, REPLIES), min_size=1, max_size=3), st.data())
def test_truncated_answers_keep_their_text(messages: list[Message], data: st.DataObject) -> None:
    tokens = [token for message in messages for token in ENCODING.render(message)]
    cut = data.draw(st.integers(0, len(tokens)))
    parser = StreamParser(ENCODING)
    run(parser, tokens[:cut])
    whole = [fields(message)[3] for message in messages]
    found = [fields(message)[3] for message in parser.messages]
    markers = [token for token in tokens[:cut] if token in (special.START, special.MESSAGE)]
    if markers and markers[-1] == special.START:
        # Cut inside a header, whose words may look like text.
        found = found[: markers.count(special.MESSAGE)]
    assert found[:-1] == whole[: len(found)][:-1]
    if found:
        assert whole[len(found) - 1].startswith(found[-1].rstrip("\ufffd"))


@pytest.mark.parametrize("word", ["assistant", "assistant ", "<|channel|>", "to= ", "<", " a"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_huge_header_is_survived(word: str, strict: bool) -> None:
    tokens = [special.START, *tokens_of(word) * 20_000, *tokens_of("<|message|>x<|end|>")]
    parser = StreamParser(ENCODING, strict=strict)
    try:
        run(parser, tokens)
    except ParseError:
        assert strict
