"""A turn's conversation in no API's words: what was said, called and answered, in order.

Harmony's messages have no call ids: an answer belongs to the oldest unanswered call of the same
tool. Old reasoning is left out as harmony does it, so only that of an unfinished answer travels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gptoss_harmony import DeveloperContent, Message, Role, TextContent
from gptoss_harmony.render import RenderStyle, kept_messages
from gptoss_serve.upstream.offered import Offer

_LOST = "[The result of this call was not kept.]"
_NOBODY = (None, "", "all", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Said:
    """A text; `thought` is the model's reasoning, `preamble` what it says before a call."""

    who: Literal["user", "assistant", "preamble", "thought"]
    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """The model called a function of the upstream's view."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a call."""

    call_id: str
    text: str


Step = Said | Called | Answered


def instructions_of(messages: Sequence[Message], offer: Offer) -> str:
    """What other APIs call the system prompt: the developer's words and those of our tools."""
    given = [
        content.instructions
        for message in messages
        for content in message.content
        if isinstance(content, DeveloperContent) and content.instructions
    ]
    return "\n\n".join([*given, *offer.notes])


def steps_of(messages: Sequence[Message], offer: Offer, style: RenderStyle) -> list[Step]:
    """The conversation without system and developer messages."""
    steps: list[Step] = []
    waiting: list[tuple[str, str]] = []  # recipient and id of calls without an answer
    for message in kept_messages(messages, style):
        role = message.author.role
        if role == Role.USER:
            steps += _unanswered(waiting)
            steps.append(Said("user", _text(message)))
        elif role == Role.ASSISTANT:
            steps.append(_assistant(message, offer, waiting, number=len(steps)))
        elif role == Role.TOOL:
            steps += _answer(message, waiting)
    steps += _unanswered(waiting)
    return steps


def _assistant(
    message: Message, offer: Offer, waiting: list[tuple[str, str]], *, number: int
) -> Step:
    text = _text(message)
    recipient = message.recipient
    if recipient not in _NOBODY:
        assert recipient is not None
        called = offer.to(recipient)
        waiting.append((recipient, f"call_{number}"))
        return Called(f"call_{number}", called.name, called.arguments(text))
    if message.channel == "analysis":
        return Said("thought", text)
    return Said("preamble" if message.channel == "commentary" else "assistant", text)


def _answer(message: Message, waiting: list[tuple[str, str]]) -> list[Step]:
    name = message.author.name or ""
    mine = [entry for entry in waiting if _same_tool(entry[0], name)]
    if not mine:
        return []  # an answer to nothing: no API can carry it
    waiting.remove(mine[0])
    return [Answered(mine[0][1], _text(message))]


def _same_tool(recipient: str, name: str) -> bool:
    if recipient == name or recipient.removeprefix("functions.") == name:
        return True
    return recipient.partition(".")[0] == name.partition(".")[0] != "functions"


def _unanswered(waiting: list[tuple[str, str]]) -> list[Step]:
    """Servers refuse calls without an answer."""
    answers: list[Step] = [Answered(call_id, _LOST) for _, call_id in waiting]
    waiting.clear()
    return answers


def _text(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextContent))
