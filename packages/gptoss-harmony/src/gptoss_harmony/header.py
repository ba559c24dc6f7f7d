"""The header of a message: text between `<|start|>` and `<|message|>` -> who, where, to whom.

```
>>> header, flaws = read_header("assistant<|channel|>commentary to=functions.f <|constrain|>json")
>>> header
Header(role='assistant', name=None, channel='commentary', recipient='functions.f',
       content_type='<|constrain|>json')
```

The words may come in the order of either harmony renderer. What a well-formed header would not
have is read as the nearest thing that is, and listed as a flaw: the recovering parser reports the
flaws, the strict one raises the first.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Literal

ROLES: Final = ("system", "developer", "user", "assistant", "tool")
CHANNELS: Final = ("analysis", "commentary", "final")

FlawKind = Literal[
    "missing_role",
    "unknown_role",
    "doubled_role",
    "doubled_channel",
    "doubled_recipient",
    "empty_channel",
    "word_breaks",
    "header_order",
    "extra_words",
    "function_name",
    "call_on_analysis",
]

_CHANNEL: Final = "<|channel|>"
_CONSTRAIN: Final = "<|constrain|>"
_PIECE: Final = re.compile(
    r"<\|channel\|>|<\|constrain\|>|(?:(?!<\|(?:channel|constrain)\|>)[^ \t\n\f\r])+"
)
_DOUBLED_ROLE: Final = re.compile(rf"({'|'.join(ROLES)})\1+")
_GLUED_ROLE: Final = re.compile(rf"({'|'.join(ROLES)})({'|'.join(CHANNELS)}|to=.+)")
_GLUED_CHANNEL: Final = re.compile(rf"({'|'.join(CHANNELS)})(to=.*|<.*)")
_BUILTINS: Final = frozenset({"browser", "python", "container"})


@dataclass(frozen=True, slots=True)
class Header:
    """Who speaks, on which channel, to whom, in what format.

    Attributes:
        role: system, developer, user, assistant or tool.
        name: of the tool, or of a named author.
        channel: analysis, commentary, final, or whatever the header says; None if it says nothing.
        recipient: the tool that is called, or `assistant` in a tool's reply.
        content_type: for example `<|constrain|>json` or `code`.
    """

    role: str
    name: str | None = None
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that a well-formed header would not have.

    Attributes:
        kind: what was wrong.
        problem: one sentence.
        text: words that ended up in no field.
    """

    kind: FlawKind
    problem: str
    text: str = ""


@dataclass(slots=True)
class _Words:
    """A header taken apart, not yet understood."""

    plain: list[str] = field(default_factory=list)  # `<|constrain|>json` is one word
    channels: list[str] = field(default_factory=list)
    flaws: list[Flaw] = field(default_factory=list)

    def flaw(self, kind: FlawKind, problem: str, text: str = "") -> None:
        self.flaws.append(Flaw(kind, problem, text))


def read_header(text: str, role: str | None = None) -> tuple[Header, list[Flaw]]:
    """Understand a header.

    Args:
        text: everything between `<|start|>` and `<|message|>`, or from after `<|start|>role` where
            `role` is given; markers by name.
        role: who speaks, if that was known before the header.

    Returns:
        The header, and what was wrong with it; nothing for a well-formed one.
    """
    words = _take_apart(text)
    author, name = _author(words) if role is None else (_given_role(words, role), None)
    recipient, content_type = _addressee(words)
    return Header(author, name, _channel(words), recipient, content_type), words.flaws


def mend_call(header: Header, functions: Collection[str] | None) -> tuple[Header, list[Flaw]]:
    """Correct the address of a function call that models often get wrong.

    Args:
        header: of any message; only calls by the assistant are changed.
        functions: names of the functions that exist, without `functions.`; None if not known, and
            then names are taken as they are.
    """
    recipient = header.recipient
    flaws: list[Flaw] = []
    if header.role != "assistant" or recipient is None:
        return header, flaws
    prefix, _, rest = recipient.partition(".")
    if functions is not None and recipient in functions:
        flaws.append(Flaw("function_name", f"{recipient} was called without `functions.`"))
        recipient = f"functions.{recipient}"
    elif functions is not None and prefix == "functions" and _is_builtin(rest, functions):
        flaws.append(Flaw("function_name", f"{rest} is no function and was called as one"))
        recipient = rest
    channel = header.channel
    if channel == "analysis" and recipient.startswith("functions."):
        flaws.append(Flaw("call_on_analysis", f"{recipient} was called on the analysis channel"))
        channel = "commentary"
    return dataclasses.replace(header, recipient=recipient, channel=channel), flaws


def _is_builtin(name: str, functions: Collection[str]) -> bool:
    return name not in functions and name.partition(".")[0] in _BUILTINS


def _take_apart(text: str) -> _Words:
    """Split into words; the word after a marker belongs to it."""
    words = _Words()
    marker, marker_end = "", 0
    for match in _PIECE.finditer(text):
        piece = match.group()
        if piece in (_CHANNEL, _CONSTRAIN):
            _lone_marker(words, marker)
            marker, marker_end = piece, match.end()
            continue
        torn = match.start() != marker_end
        if marker and torn and piece.startswith("to="):
            _lone_marker(words, marker)
            words.plain.append(piece)
        elif marker == _CHANNEL:
            _channel_value(words, piece, torn=torn)
        elif marker:
            words.plain.append(marker + piece)
            if torn:
                words.flaw("word_breaks", f"there is space between {marker} and {piece!r}")
        else:
            words.plain.append(piece)
        marker = ""
    _lone_marker(words, marker)
    return words


def _lone_marker(words: _Words, marker: str) -> None:
    """Note a marker without a word."""
    if marker == _CHANNEL:
        words.flaw("empty_channel", "the channel marker has no channel after it")
    elif marker:
        words.plain.append(marker)


def _channel_value(words: _Words, piece: str, *, torn: bool) -> None:
    if torn:
        words.flaw("word_breaks", f"there is space between the channel marker and {piece!r}")
    if piece.startswith("to="):
        words.flaw("empty_channel", "the channel marker has no channel after it")
        words.plain.append(piece)
    elif glued := _GLUED_CHANNEL.fullmatch(piece):
        words.channels.append(glued[1])
        words.plain.append(glued[2])
        words.flaw("word_breaks", f"the channel {glued[1]} runs into {glued[2]!r}")
    else:
        words.channels.append(piece)


def _given_role(words: _Words, role: str) -> str:
    """Drop repetitions of a role that is known already; one is how some prompts go on."""
    count = 0
    while count < len(words.plain) and words.plain[count] == role:
        count += 1
    del words.plain[:count]
    if words.plain and (rest := _without_role(words, role)) is not None:
        words.plain[:1] = rest
        count += 1
    if count > 1:
        words.flaw("doubled_role", f"the header says {role} again")
    return role


def _without_role(words: _Words, role: str) -> list[str] | None:
    """What is left of a first word that `role` runs into; None if that is not how it begins."""
    first = words.plain[0]
    if (doubled := _DOUBLED_ROLE.fullmatch(first)) and doubled[1] == role:
        words.flaw("doubled_role", f"the header says {first!r}")
        return []
    glued = _GLUED_ROLE.fullmatch(first)
    if glued is None or glued[1] != role:
        return None
    words.flaw("word_breaks", f"the role {role} runs into {glued[2]!r}")
    if glued[2] not in CHANNELS:
        return [glued[2]]
    words.channels.append(glued[2])
    return []


def _author(words: _Words) -> tuple[str, str | None]:
    """The role and name that the first word says."""
    first = words.plain[0] if words.plain else ""
    if not first or first.startswith(("to=", _CONSTRAIN)):
        words.flaw("missing_role", "the header has no role; read as assistant")
        return "assistant", None
    for role in ROLES:
        if first == role or _without_role(_Words([first]), role) is not None:
            # A tool may be anonymous: then `tool` is all the name it has.
            return _given_role(words, role), "tool" if role == "tool" else None
    words.plain.pop(0)
    role, colon, name = first.partition(":")
    if colon and role in ROLES:
        return role, name
    if not words.plain:
        words.flaw("unknown_role", f"{first!r} is no role; read as the name of a tool")
    return "tool", first


def _addressee(words: _Words) -> tuple[str | None, str | None]:
    """Recipient and content type, from the words after the role."""
    plain = words.plain
    addressed = [word[3:] for word in plain if word.startswith("to=")]
    formats = [word for word in plain if word.startswith(_CONSTRAIN)]
    bare = [word for word in plain if not word.startswith(("to=", _CONSTRAIN))]
    if addressed and not plain[0].startswith("to="):
        words.flaw("header_order", "the recipient comes after the content type")
    if len(addressed) > 1:
        others = [name for name in addressed[:-1] if name != addressed[-1]]
        words.flaw("doubled_recipient", "the header has more than one recipient", " ".join(others))
    recipient = addressed[-1] if addressed else None
    if recipient == "" and bare:
        words.flaw("word_breaks", f"there is space between to= and {bare[0]!r}")
    if not recipient:
        recipient = bare.pop(0) if bare else None
    content_type = formats.pop() if formats else None
    if content_type is None and bare:
        content_type = bare.pop()
    if bare or formats:
        words.flaw("extra_words", "the header has more words than fields", " ".join(bare + formats))
    return recipient, content_type


def _channel(words: _Words) -> str | None:
    if not words.channels:
        return None
    *others, last = words.channels
    if others:
        lost = " ".join(name for name in others if name != last)
        words.flaw("doubled_channel", f"the header has more than one channel; {last} is kept", lost)
    return last
