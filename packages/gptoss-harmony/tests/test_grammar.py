"""Whatever is sampled under a constraint obeys it, ends properly, and fits its budget."""

from __future__ import annotations

import json
import random
import re
import sys
from typing import Any

import jsonschema
import numpy as np
import pytest
from openai_harmony import Message, TextContent, ToolDescription

from gptoss_harmony import grammar as grammar_module
from gptoss_harmony import tokens as special
from gptoss_harmony.encoding import Encoding, load_encoding
from gptoss_harmony.engine import Constraint
from gptoss_harmony.errors import GrammarError, NotInstalled
from gptoss_harmony.events import MessageDone, Repaired
from gptoss_harmony.grammar import (
    AnswerFormat,
    Grammar,
    JsonSchema,
    Lark,
    Regex,
    call_format,
)
from gptoss_harmony.parse import StreamParser
from gptoss_harmony.shortest_path import PathFinder

pytest.importorskip("llguidance")

ENCODING = load_encoding()
WORDS = -(-special.VOCABULARY_SIZE // 32)

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3},
        "age": {"type": "integer", "minimum": 5, "maximum": 120},
        "colours": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 2},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            "required": ["street", "city"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "colours"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"anyOf": [{"type": "number"}, {"type": "null"}, {"const": "leaf"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS = {
    "person": PERSON,
    "tree": TREE,
    "any object": {"type": "object"},
    "list of pairs": {
        "type": "array",
        "minItems": 3,
        "items": {
            "type": "array",
            "prefixItems": [{"type": "boolean"}],
            "items": False,
            "minItems": 1,
        },
    },
}


def allowed(constraint: Constraint) -> np.ndarray[Any, np.dtype[np.int64]]:
    row = np.zeros(WORDS, np.int32)
    assert constraint.fill(row)
    return np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))


CLOSING = np.array([text[:1] in (b'"', b"}", b"]") for text in ENCODING.token_bytes])


def sample(constraint: Constraint, seed: int, *, limit: int = 2000) -> list[int]:
    """Random allowed tokens; markers and closing tokens are likelier than their number."""
    chance = random.Random(seed)
    out: list[int] = []
    while not constraint.done and len(out) < limit:
        choices = allowed(constraint)
        assert len(choices)
        for likely in (choices[choices >= special.FIRST_SPECIAL], choices[CLOSING[choices]]):
            if len(likely) and chance.random() < 0.3:
                choices = likely
        token = int(chance.choice(choices))
        constraint.accept(token)
        out.append(token)
    return out


def last_message(tokens: list[int], **options: Any) -> tuple[Message, str, int | None]:
    """The last message, its text and its end; the stream must need no repair."""
    parser = StreamParser(ENCODING, "assistant", **options)
    events = [event for token in tokens for event in parser.process(token)]
    assert not parser.finish()
    assert not [event for event in events if isinstance(event, Repaired)]
    done = events[-1]
    assert isinstance(done, MessageDone)
    assert isinstance(done.message.content[0], TextContent)
    return done.message, done.message.content[0].text, done.end


@pytest.mark.parametrize("name", SCHEMAS)
def test_sampled_json_is_valid_and_fits_the_budget(name: str) -> None:
    grammar = Grammar(ENCODING, AnswerFormat(channels={"final": JsonSchema(SCHEMAS[name])}))
    shortest = grammar.constraint(budget=10_000).tokens_to_end(exact=True)
    for seed, budget in enumerate([shortest, shortest + 5, 90, 250]):
        tokens = sample(grammar.constraint(budget=budget), seed)
        assert len(tokens) <= budget
        message, text, end = last_message(tokens)
        assert message.channel == "final"
        assert end == special.RETURN
        jsonschema.validate(json.loads(text), SCHEMAS[name])


def test_without_a_budget_text_goes_on_as_long_as_it_likes() -> None:
    grammar = Grammar(ENCODING, AnswerFormat(channels={"final": JsonSchema(PERSON)}))
    for seed in range(3):
        tokens = sample(grammar.constraint(), seed)
        jsonschema.validate(json.loads(last_message(tokens)[1]), PERSON)


def test_a_generous_budget_is_looked_at_only_when_it_runs_low(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "([a-z]{20} )*"
    grammar = Grammar(ENCODING, AnswerFormat(channels={"final": Regex(text)}))
    with monkeypatch.context() as patch:
        patch.setattr(PathFinder, "short", lambda *_: pytest.fail("it looked for the end"))
        generous = grammar.constraint(budget=100_000)
        row = np.zeros(WORDS, np.int32)
        start = "<|channel|>final<|message|>abcdefghij"
        for token in ENCODING.encode(start, allowed_special="all"):
            assert generous.fill(row)
            generous.accept(token)
    monkeypatch.setattr(grammar_module, "_FAR", 60)
    for seed in range(3):
        tokens = sample(grammar.constraint(budget=80), seed)
        assert len(tokens) <= 80
        assert re.fullmatch(text, last_message(tokens)[1])


def test_a_budget_that_no_answer_fits_is_refused() -> None:
    grammar = Grammar(ENCODING, AnswerFormat(channels={"final": JsonSchema(PERSON)}))
    with pytest.raises(GrammarError, match=r"shortest answer .* has \d+ tokens, but only 8"):
        grammar.constraint(budget=8)


def test_regex_and_lark() -> None:
    pattern = r"[a-z]+/\d{4}-\d{2}|\"quoted\""
    by_regex = Grammar(ENCODING, AnswerFormat(channels={"final": Regex(pattern)}))
    arithmetic = Lark('start: NUMBER ("+" NUMBER)+\nNUMBER: /[1-9][0-9]{0,3}/')
    by_lark = Grammar(ENCODING, AnswerFormat(channels={"final": arithmetic}, analysis=False))
    for seed in range(4):
        assert re.fullmatch(pattern, last_message(sample(by_regex.constraint(budget=80), seed))[1])
        text = last_message(sample(by_lark.constraint(budget=60), seed))[1]
        assert re.fullmatch(r"[1-9]\d{0,3}(\+[1-9]\d{0,3})+", text)
    assert by_lark.constraint().source is arithmetic


@pytest.mark.parametrize(
    ("source", "prefix", "shortest"),
    [
        (JsonSchema(PERSON), '{"name": "Ann', '","age":5,"colours":["red","red"]}'),
        (Regex("a*b{3}c?"), "aa", "bbb"),
        (Regex("(x{40}|y)z"), "", "yz"),
        (Regex("[a-z]+/[0-9]"), "ab", "/0"),
        (JsonSchema(TREE), '{"value":1,"children":[', "]}"),
    ],
)
def test_shortest_completions_are_found(source: Any, prefix: str, shortest: str) -> None:
    grammar = Grammar(ENCODING, AnswerFormat(channels={"final": source}, prefilled="final"))
    start = ENCODING.encode_text(prefix)
    expected = len(ENCODING.encode_text(shortest)) + 1
    constraint = grammar.constraint(budget=len(start) + expected + 1000)
    for token in start:
        constraint.accept(token)
    assert constraint.tokens_to_end(exact=True) <= expected
    constraint = grammar.constraint(budget=len(start) + expected)
    tokens = sample(constraint, 0)
    assert len(tokens) <= len(start) + expected


TOOLS = [
    ToolDescription.new("weather", "", {**PERSON, "required": ["age"]}),
    ToolDescription.new("now", ""),
]


@pytest.mark.parametrize(
    ("choice", "recipients"),
    [
        ("required", {"functions.weather", "functions.now"}),
        ("now", {"functions.now"}),
        ("none", {None}),
        ("auto", {"functions.weather", "functions.now", "python", None}),
    ],
)
def test_tool_choices(choice: str, recipients: set[str | None]) -> None:
    tools = () if choice == "none" else ("python",) if choice == "auto" else ()
    grammar = Grammar(ENCODING, call_format(TOOLS, tool_choice=choice, builtin_tools=tools))
    found = set()
    for seed in range(10):
        message, text, end = last_message(sample(grammar.constraint(budget=200), seed))
        found.add(message.recipient)
        assert end == (special.RETURN if message.recipient is None else special.CALL)
        assert message.channel == {None: "final", "python": "analysis"}.get(
            message.recipient, "commentary"
        )
        if message.recipient == "functions.weather":
            jsonschema.validate(json.loads(text), TOOLS[0].parameters)
        elif message.recipient == "functions.now":
            assert isinstance(json.loads(text), dict)
    assert found <= recipients
    assert len(found) > len(recipients) / 2


def test_a_prefilled_header_starts_inside_the_message() -> None:
    answer = AnswerFormat(channels={"final": Regex("yes|no")}, prefilled="final")
    for seed in range(4):
        tokens = sample(Grammar(ENCODING, answer).constraint(), seed)
        assert ENCODING.decode(tokens) in ("yes<|return|>", "no<|return|>")
    answer = call_format(TOOLS, tool_choice="now", prefilled="functions.now")
    tokens = sample(Grammar(ENCODING, answer).constraint(budget=40), 1)
    assert tokens[-1] == special.CALL
    assert isinstance(json.loads(ENCODING.decode(tokens[:-1])), dict)
    answer = AnswerFormat(channels={"final": Regex("yes|no")}, prefilled="analysis")
    prefill = ENCODING.encode("<|channel|>analysis<|message|>", allowed_special="all")
    tokens = sample(Grammar(ENCODING, answer).constraint(budget=60), 2)
    assert last_message([*prefill, *tokens])[1] in ("yes", "no")


def test_thinking_is_free_but_cannot_end_the_answer() -> None:
    constraint = Grammar(ENCODING, AnswerFormat(channels={"final": Regex("yes")})).constraint()
    header = ENCODING.encode("<|channel|>analysis<|message|>", allowed_special="all")
    for token in [*header, *ENCODING.encode_text("Let me <think>…\n\n👩‍🚀")]:
        constraint.accept(token)
    choices = allowed(constraint)
    assert len(choices) > 199_000
    assert [t for t in choices if t >= special.FIRST_SPECIAL] == [special.END]


def test_another_channel_can_be_constrained() -> None:
    answer = AnswerFormat(channels={"analysis": Regex("(so )+")})
    for seed in range(4):
        parser = StreamParser(ENCODING, "assistant")
        for token in sample(Grammar(ENCODING, answer).constraint(budget=60), seed):
            parser.process(token)
        for message in parser.messages:
            assert isinstance(message.content[0], TextContent)
            if message.channel == "analysis":
                assert re.fullmatch("(so )+", message.content[0].text)
        assert parser.messages[-1].channel == "final"


def test_rollback_restores_the_masks() -> None:
    constraint = Grammar(
        ENCODING, AnswerFormat(channels={"final": JsonSchema(PERSON)}, prefilled="final")
    ).constraint(budget=80)
    masks = []
    tokens = ENCODING.encode_text('{"name": "Anna", "age": 50, "colours": ["red", "green"]}')
    for token in [*tokens, special.RETURN]:
        masks.append(allowed(constraint))
        constraint.accept(token)
    assert constraint.done
    for count in (1, 4, 10):
        constraint.rollback(count)
        masks = masks[: len(masks) - count + 1]
        assert not constraint.done
        assert np.array_equal(allowed(constraint), masks[-1])
        tokens = tokens[: len(masks) - 1]
        masks.pop()
    with pytest.raises(GrammarError, match="cannot take back 99"):
        constraint.rollback(99)


def test_what_is_not_allowed_is_refused() -> None:
    constraint = Grammar(
        ENCODING, AnswerFormat(channels={"final": Regex("yes")}, prefilled="final")
    ).constraint()
    with pytest.raises(GrammarError, match="token 200002 is not allowed"):
        constraint.accept(special.RETURN)
    constraint.accept(ENCODING.encode_text("yes")[0])  # a refused token changed nothing
    with pytest.raises(GrammarError, match=r"int32\[6284\]"):
        constraint.fill(np.zeros(10, np.int32))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AnswerFormat(channels={"final": JsonSchema({"not": {}})}), "final channel.*not"),
        (lambda: AnswerFormat(channels={"final": Lark("start: (")}), "Lark of the final channel"),
        (lambda: AnswerFormat(channels={"final": Regex("(?<=a)b")}), "Regex of the final channel"),
        (lambda: AnswerFormat(channels={"final": Lark("start: <[200012]>")}), "special token"),
        (
            lambda: AnswerFormat(functions={"f": JsonSchema({"type": "strange"})}),
            "JsonSchema of the function f",
        ),
        (lambda: AnswerFormat(channels={"aside": Regex("a")}), "unknown channel 'aside'"),
        (lambda: AnswerFormat(tool_choice="required"), "no function to call"),
        (lambda: AnswerFormat(tool_choice="f"), "'f', which is no function"),
        (lambda: AnswerFormat(functions={"a b": Regex("a")}), "'a b' cannot be called"),
        (lambda: AnswerFormat(prefilled="functions.f"), "prefilled names"),
        (
            lambda: AnswerFormat(
                functions={"f": Regex("a")}, tool_choice="required", prefilled="final"
            ),
            "a function must be called",
        ),
    ],
)
def test_what_cannot_be_enforced_is_named(build: Any, words: str) -> None:
    with pytest.raises(GrammarError, match=words):
        Grammar(ENCODING, build())


def test_without_llguidance_there_is_a_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    fresh = Encoding(ENCODING.harmony, ENCODING.token_bytes)
    with pytest.raises(NotInstalled, match=r"pip install 'gptoss-harmony\[grammar\]'"):
        Grammar(fresh, AnswerFormat(channels={"final": Regex("yes")}))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "[äöü]"},
        {"type": "string", "pattern": "needle", "minLength": 12},
        {"type": "string", "format": "email"},
        {
            "type": "object",
            "properties": {"id": {"type": "string", "format": "uuid"}, "": {"const": 3}},
            "required": ["id"],
            "patternProperties": {"^x-": {"type": ["integer", "null"]}},
            "additionalProperties": False,
        },
    ],
)
def test_a_short_end_is_found_where_nothing_leads_to_it(schema: dict[str, Any]) -> None:
    grammar = Grammar(ENCODING, AnswerFormat(channels={"final": JsonSchema(schema)}))
    need = grammar.constraint().tokens_to_end(exact=True)
    tokens = sample(grammar.constraint(budget=need), seed=1)
    assert len(tokens) <= need < 40
    jsonschema.validate(json.loads(last_message(tokens)[1]), schema)


@pytest.mark.parametrize("analysis", [True, False])
def test_without_preambles_nothing_is_said_before_the_end(analysis: bool) -> None:
    channels = {"final": JsonSchema({"type": "object"})}
    format = AnswerFormat(channels=channels, analysis=analysis, preamble=False)
    grammar = Grammar(ENCODING, format)
    preamble = ENCODING.encode("<|channel|>commentary<|message|>", allowed_special="all")
    constraint = grammar.constraint()

    def say_preamble() -> None:
        for token in preamble:
            constraint.accept(token)

    with pytest.raises(GrammarError, match="not allowed"):
        say_preamble()
    message, _, _ = last_message(sample(grammar.constraint(budget=60), seed=2))
    assert message.channel == "final"
