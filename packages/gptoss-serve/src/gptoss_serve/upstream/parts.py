"""Pieces of an upstream's answer -> parts of a turn, in order and never overlapping.

Models behind other servers may write several calls at once. The oldest open part streams; what
comes for later ones waits until it is their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Protocol

from gptoss_harmony import Message, assistant_message, call_message
from gptoss_serve.events import Citation, Event, PartDelta, PartDone, PartKind, PartStarted
from gptoss_serve.reader import Citing
from gptoss_serve.upstream.offered import Offered

_CHANNELS = {"reasoning": "analysis", "preamble": "commentary", "answer": "final"}


class _Link(Protocol):
    start_index: int
    end_index: int
    title: str
    url: str


class _Part:
    """One part: what has come and what of it has been said."""

    def __init__(self, kind: PartKind, offered: Offered | None) -> None:
        self.kind = kind
        self.offered = offered
        self.waiting: list[str] = []
        self.raw: list[str] = []
        self.said: list[str] = []
        self.started = False
        self.complete: bool | None = None  # None while it is open
        self.rewriter: Citing | None = None

    @property
    def name(self) -> str | None:
        return None if self.offered is None else self.offered.recipient.removeprefix("functions.")

    @property
    def is_held(self) -> bool:
        """Whether the text can be read only once it is whole."""
        freeform = self.offered is not None and self.offered.text_field is not None
        return freeform and self.complete is None


class PartLine:
    """The parts of one answer.

    Args:
        first_index: of the first part.
        citing: makes the rewriter of an answer's citations; None leaves them as they are.
        one_call: leave out every call but the first, where the client wants one at a time.

    Attributes:
        index: of the next part.
        calls: complete calls of our tools, as (part index, message).
        asked_client: whether a function of the client was called.
    """

    def __init__(
        self, *, first_index: int, citing: Callable[[], Citing] | None, one_call: bool = False
    ) -> None:
        self.index = first_index
        self.calls: list[tuple[int, Message]] = []
        self.asked_client = False
        self._citing = citing
        self._parts: dict[Hashable, _Part] = {}
        self._messages: list[Message] = []
        self._one_call = one_call
        self._has_call = False
        self._left_out: set[Hashable] = set()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._parts or key in self._left_out

    @property
    def messages(self) -> list[Message]:
        """The messages so far; what came before a call was no final answer."""
        if not self.calls and not self.asked_client:
            return list(self._messages)
        return [
            message.with_channel("commentary") if message.channel == "final" else message
            for message in self._messages
        ]

    def start(
        self, key: Hashable, kind: PartKind, *, offered: Offered | None = None
    ) -> Iterator[Event]:
        """A part begins."""
        if offered is not None and self._has_call and self._one_call:
            self._left_out.add(key)
            return
        self._has_call = self._has_call or offered is not None
        self._parts[key] = _Part(kind, offered)
        yield from self._advance()

    def grow(self, key: Hashable, text: str) -> Iterator[Event]:
        """More text of an open part."""
        if key in self._left_out:
            return
        part = self._parts[key]
        part.waiting.append(text)
        part.raw.append(text)
        yield from self._advance()

    def end(self, key: Hashable, *, complete: bool = True) -> Iterator[Event]:
        """A part is over."""
        if key in self._left_out:
            return
        self._parts[key].complete = complete
        yield from self._advance()

    def end_all(self, *, complete: bool) -> Iterator[Event]:
        """Nothing more comes."""
        for part in self._parts.values():
            part.complete = complete if part.complete is None else part.complete
        yield from self._advance()

    def _advance(self) -> Iterator[Event]:
        """Say what can be said: of the oldest part, and of the next once that is over."""
        while self._parts:
            key, part = next(iter(self._parts.items()))
            yield from self._say(part)
            if part.complete is None:
                return
            del self._parts[key]
            if part.started:
                yield from self._close(part)

    def _say(self, part: _Part) -> Iterator[Event]:
        text = "" if part.is_held else "".join(part.waiting)
        if not part.started and (text or part.offered is not None):
            part.started = True
            if part.kind == "answer" and self._citing is not None:
                part.rewriter = self._citing()
            yield PartStarted(self.index, part.kind, part.name)
        if not text:
            return
        part.waiting.clear()
        if part.offered is not None and part.complete is not None:
            text = part.offered.text(text) if part.offered.text_field is not None else text
        if part.rewriter is not None:
            yield from self._delta(part, *part.rewriter.feed(text))
        else:
            yield from self._delta(part, text, ())

    def _delta(self, part: _Part, text: str, links: Sequence[_Link]) -> Iterator[Event]:
        if text:
            part.said.append(text)
            citations = tuple(Citation(c.start_index, c.end_index, c.title, c.url) for c in links)
            yield PartDelta(self.index, part.kind, text, (), citations)

    def _close(self, part: _Part) -> Iterator[Event]:
        if part.rewriter is not None:
            yield from self._delta(part, *part.rewriter.finish())
        message = _message(part)
        complete = bool(part.complete)
        self._messages.append(message)
        if complete and part.kind == "builtin":
            self.calls.append((self.index, message))
        self.asked_client = self.asked_client or (complete and part.kind == "call")
        yield PartDone(self.index, part.kind, part.name, "".join(part.said), complete)
        self.index += 1


def _message(part: _Part) -> Message:
    """The part in harmony's words, as the next prompt will hold it."""
    if part.offered is None:
        return assistant_message("".join(part.raw), channel=_CHANNELS[part.kind])
    recipient = part.offered.recipient
    channel = "commentary" if recipient.startswith("functions.") else "analysis"
    return call_message(recipient, "".join(part.said), channel=channel)
