"""One answer of an engine, read: tokens in, events and messages out.

A message with a recipient is a call; which ones run here, which go to the client and which name
nothing at all is decided here. Text that belongs nowhere is still reported, as reasoning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from gptoss_harmony import (
    Encoding,
    Message,
    MessageDone,
    MessageStarted,
    Repaired,
    Role,
    StreamParser,
    TextDelta,
    TokenOutput,
)
from gptoss_harmony.header import Header
from gptoss_serve.events import (
    Citation,
    Event,
    Mended,
    PartDelta,
    PartDone,
    PartKind,
    PartStarted,
    ScoredToken,
)

_NOBODY = (None, "", "all", "user", "assistant")


class _Link(Protocol):
    """A citation as the browser reports it."""

    start_index: int
    end_index: int
    title: str
    url: str


class Citing(Protocol):
    """Rewrites the citations of one text; `gptoss_tools` browsers make them."""

    def feed(self, piece: str) -> tuple[str, Sequence[_Link]]:
        """Return the text that is certain and the links in it."""
        ...

    def finish(self) -> tuple[str, Sequence[_Link]]:
        """Return what was held back."""
        ...


class AnswerReader:
    """Reads one answer.

    Args:
        encoding: the harmony encoding.
        builtin: names of the tools that run here, such as `python`.
        functions: names of the client's functions, without `functions.`.
        first_index: of the first part.
        citing: makes the rewriter of an answer's citations; None leaves them as they are.
        prefill: tokens of the header that stand in the prompt already.

    Attributes:
        calls: builtin calls to run, as (part index, message).
        asked_client: whether a function of the client was called.
        index: of the next part.
        reasoning_tokens: tokens of the analysis channel.
        output_tokens: all tokens.
        finish_reason: the engine's.
    """

    def __init__(
        self,
        encoding: Encoding,
        *,
        builtin: Collection[str],
        functions: Collection[str],
        first_index: int = 0,
        citing: Callable[[], Citing] | None = None,
        prefill: Sequence[int] = (),
    ) -> None:
        self._parser = StreamParser(
            encoding, Role.ASSISTANT, functions=frozenset(functions), prefill=prefill
        )
        self._builtin = frozenset(builtin)
        self._functions = frozenset(functions)
        self._citing = citing
        self._rewriter: Citing | None = None
        self._part: tuple[PartKind, str | None] | None = None
        self._text: list[str] = []
        self._scores: list[ScoredToken] = []
        self._messages: list[Message] = []
        self.calls: list[tuple[int, Message]] = []
        self.asked_client = False
        self.index = first_index
        self.reasoning_tokens = 0
        self.output_tokens = 0
        self.finish_reason: str | None = None

    @property
    def messages(self) -> list[Message]:
        """The complete messages, in the model's own words."""
        return list(self._messages)

    def read(self, outputs: Sequence[TokenOutput]) -> Iterator[Event]:
        """Take a batch of outputs; deltas of the batch that follow each other become one."""
        pending: list[str] = []
        for output in outputs:
            if output.finish_reason is not None:
                self.finish_reason = output.finish_reason
            if output.token is None:
                continue
            self._count(output)
            for event in self._parser.process(output.token):
                if isinstance(event, TextDelta):
                    pending.append(event.text)
                    continue
                yield from self._grow(pending)
                yield from self._translate(event)
        yield from self._grow(pending)

    def finish(self) -> Iterator[Event]:
        """End the answer: what is open is closed as incomplete."""
        for event in self._parser.finish():
            if isinstance(event, TextDelta):
                yield from self._grow([event.text])
            else:
                yield from self._translate(event)

    def _count(self, output: TokenOutput) -> None:
        self.output_tokens += 1
        header = self._parser.current_header
        if header is not None and header.channel == "analysis":
            self.reasoning_tokens += 1
        answering = self._part is not None and self._part[0] == "answer"
        if answering and output.logprob is not None and output.token is not None:
            self._scores.append(ScoredToken(output.token, output.logprob, output.top_logprobs))

    def _translate(self, event: object) -> Iterator[Event]:
        if isinstance(event, MessageStarted):
            self._part = self._kind(event.header)
            self._text.clear()
            self._scores.clear()
            if self._part[0] == "answer" and self._citing is not None:
                self._rewriter = self._citing()
            yield PartStarted(self.index, *self._part)
        elif isinstance(event, MessageDone):
            yield from self._end(event)
        elif isinstance(event, Repaired):
            yield Mended(event.problem)
            if event.text.strip():
                yield from self._stray(event.text)

    def _stray(self, text: str) -> Iterator[Event]:
        """Report characters that became part of no message, between parts."""
        if self._part is None:
            yield PartStarted(self.index, "reasoning")
            yield PartDelta(self.index, "reasoning", text)
            yield PartDone(self.index, "reasoning", None, text, True)
            self.index += 1

    def _grow(self, pending: list[str]) -> Iterator[Event]:
        if not pending or self._part is None:
            return
        text: str = "".join(pending)
        pending.clear()
        links: Sequence[_Link] = ()
        if self._rewriter is not None:
            text, links = self._rewriter.feed(text)
        yield from self._delta(text, links)

    def _delta(self, text: str, links: Sequence[_Link]) -> Iterator[Event]:
        assert self._part is not None
        if not text:
            return
        self._text.append(text)
        scores, self._scores = tuple(self._scores), []
        citations = tuple(Citation(c.start_index, c.end_index, c.title, c.url) for c in links)
        yield PartDelta(self.index, self._part[0], text, scores, citations)

    def _end(self, event: MessageDone) -> Iterator[Event]:
        assert self._part is not None
        if self._rewriter is not None:
            yield from self._delta(*self._rewriter.finish())
            self._rewriter = None
        (kind, name), self._part = self._part, None
        complete = event.end is not None or self.finish_reason == "stop"
        if complete and kind == "builtin":
            self.calls.append((self.index, event.message))
        self.asked_client = self.asked_client or (complete and kind == "call")
        self._messages.append(event.message)
        yield PartDone(self.index, kind, name, "".join(self._text), complete)
        self.index += 1

    def _kind(self, header: Header) -> tuple[PartKind, str | None]:
        recipient = header.recipient
        if header.role != "assistant":
            return "reasoning", None
        if recipient not in _NOBODY:
            assert recipient is not None
            return self._addressee(recipient)
        if header.channel == "analysis":
            return "reasoning", None
        return ("preamble" if header.channel == "commentary" else "answer"), None

    def _addressee(self, recipient: str) -> tuple[PartKind, str]:
        name = recipient.removeprefix("functions.")
        if name in self._functions:
            return "call", name
        tool = name.partition(".")[0]
        if tool in self._builtin:
            return "builtin", name
        return "builtin", recipient  # nobody has it: the loop answers that it does not exist
