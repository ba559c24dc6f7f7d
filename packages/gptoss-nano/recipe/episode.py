"""What a training conversation is made of, before it becomes tokens.

An episode is a setting (effort, tools, instructions), earlier turns, and one last turn whose
assistant messages are learned. Text carries labels: `Text` is a tuple of pieces (text, class,
copied), so that the trainer can see how well it predicts keys, first and later tokens of values and
syntax, and knows which words it may rename.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PROMPT, SYNTAX, KEY, VALUE, LATER, PROSE = range(6)  # classes; LATER is set on tokens, not here
Piece = tuple[str, int, bool]
Text = tuple[Piece, ...]


@dataclass(frozen=True)
class Message:
    """One harmony message of an assistant or a tool."""

    text: Text
    channel: str
    role: str = "assistant"
    name: str | None = None  # of the tool
    recipient: str | None = None
    content_type: str | None = None

    @property
    def plain(self) -> str:
        """The text without labels."""
        return plain(self.text)


@dataclass(frozen=True)
class Completion:
    """What the model says in one go, and what a tool answers (None after a final message)."""

    messages: tuple[Message, ...]
    reply: Message | None = None


@dataclass(frozen=True)
class Turn:
    """A user message and the completions that follow."""

    user: Text
    completions: tuple[Completion, ...]


@dataclass(frozen=True)
class Episode:
    """A conversation; only the last turn is learned."""

    task: str
    effort: str
    turns: tuple[Turn, ...]
    builtins: frozenset[str] = frozenset()
    tools: tuple[dict[str, Any], ...] = ()  # name, description, parameters
    instructions: str | None = None
    formats: tuple[dict[str, Any], ...] = ()  # name, description, schema
    about: dict[str, Any] = field(default_factory=dict)  # what the scorer needs to know


def plain(text: Text) -> str:
    """The characters of a text."""
    return "".join(piece[0] for piece in text)


def prose(text: str) -> Text:
    """Words of our own."""
    return ((text, PROSE, False),)


def syntax(text: str) -> Text:
    """Punctuation and file syntax."""
    return ((text, SYNTAX, False),)


def key(text: str) -> Text:
    """A name of an argument or field that is copied."""
    return ((text, KEY, True),)


def value(text: str) -> Text:
    """A value that is copied from the prompt."""
    return ((text, VALUE, True),)


def known(text: str) -> Text:
    """A value that follows from meaning (true, false), never renamed."""
    return ((text, VALUE, False),)


def fill(template: str, **parts: Text | str) -> Text:
    """Put labelled parts into a template.

    >>> plain(fill("Call {f}.", f=key("ping")))
    'Call ping.'
    """
    out: list[Piece] = []
    for index, chunk in enumerate(re.split(r"\{(\w+)\}", template)):
        if index % 2 == 0:
            out.extend(prose(chunk) if chunk else ())
        else:
            part = parts[chunk]
            out.extend(value(part) if isinstance(part, str) else part)
    return tuple(out)


def join(texts: Sequence[Text], last: str = " and ") -> Text:
    """Join with commas, and `last` before the last one."""
    out: list[Piece] = []
    for index, text in enumerate(texts):
        if index:
            out.extend(prose(last if index == len(texts) - 1 else ", "))
        out.extend(text)
    return tuple(out)


def lines(texts: Sequence[Text], between: str = "\n") -> Text:
    """Join with a separator of our own."""
    out: list[Piece] = []
    for index, text in enumerate(texts):
        if index:
            out.extend(syntax(between))
        out.extend(text)
    return tuple(out)


def json_text(data: Any) -> Text:
    """Compact JSON with labelled keys and values.

    >>> plain(json_text({"a": [1, True], "b": "x"}))
    '{"a":[1,true],"b":"x"}'
    """
    if isinstance(data, dict):
        out: list[Piece] = []
        for index, (name, item) in enumerate(data.items()):
            out.extend(syntax('{"' if index == 0 else ',"'))
            out.extend(key(_inner(name)))
            out.extend(syntax('":'))
            out.extend(json_text(item))
        return (*out, *syntax("}" if data else "{}"))
    if isinstance(data, list):
        inner = [json_text(item) for item in data]
        return (
            *syntax("["),
            *(p for i, t in enumerate(inner) for p in ((*syntax(","), *t) if i else t)),
            *syntax("]"),
        )
    if isinstance(data, str):
        return (*syntax('"'), *value(_inner(data)), *syntax('"'))
    return known(json.dumps(data))


def _inner(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def compact(data: Any) -> str:
    """The JSON that `json_text` labels."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def analysis(effort: str, medium: Text | str, high: Text | str) -> tuple[Message, ...]:
    """The thought before an action: none at low effort, one sentence, or several."""
    if effort == "low":
        return ()
    text = medium if effort == "medium" else high
    return (Message(prose(text) if isinstance(text, str) else text, "analysis"),)


def final(text: Text | str) -> Message:
    """The answer that the user sees."""
    return Message(prose(text) if isinstance(text, str) else text, "final")
