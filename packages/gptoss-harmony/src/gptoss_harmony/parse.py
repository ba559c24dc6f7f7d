"""Tokens -> messages, one token at a time, whatever the model writes.

```
parser = StreamParser(load_encoding(), Role.ASSISTANT)     # the prompt ended in <|start|>assistant
for token in answer:
    for event in parser.process(token):
        ...                                                # MessageStarted, TextDelta, ...
parser.finish()
parser.messages
```

A message is a header, `<|message|>`, text and an end token. The recovering parser (the default)
never raises and loses no character: each character of the answer ends up in a message's text, in
a header field or in the `text` of a `Repaired` event. The strict one takes what openai-harmony
takes and raises `ParseError` at the rest.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from openai_harmony import Author, Message, Role, TextContent

from gptoss_harmony import tokens as special
from gptoss_harmony.errors import ParseError
from gptoss_harmony.events import (
    Event,
    MessageDone,
    MessageStarted,
    Repaired,
    RepairKind,
    TextDelta,
)
from gptoss_harmony.header import Header, mend_call, read_header
from gptoss_harmony.rough_header import (
    header_length,
    implied_role,
    is_believable,
    looks_like_header,
)

if TYPE_CHECKING:
    from gptoss_harmony.encoding import Encoding

__all__ = [
    "Event",
    "Header",
    "MessageDone",
    "MessageStarted",
    "Repaired",
    "StreamParser",
    "TextDelta",
]

# A header is a handful of words. What grows longer than this is text that never had a header, and
# is passed on as such instead of being held back until the answer ends.
HEADER_LIMIT: Final = 256
_INNER_LIMIT: Final = 64  # the same, for what may be a header in the middle of a text


class StreamParser:
    """Turns the tokens of an answer into events and messages.

    Args:
        encoding: from `load_encoding`.
        role: who speaks first, where the prompt ended in `<|start|>role`; None where the tokens
            begin with `<|start|>`.
        strict: raise at what is not harmony instead of repairing it.
        functions: names of the functions that the developer message defines, without
            `functions.`; with them, calls to a bare name find their function.
        prefill: tokens of the message that stand in the prompt already, after `<|start|>role`:
            with `<|channel|>final<|message|>` the parser starts inside the final message. Their
            events come with the first token's; positions do not count them.

    Attributes:
        position: number of tokens processed.
    """

    def __init__(
        self,
        encoding: Encoding,
        role: Role | str | None = None,
        *,
        strict: bool = False,
        functions: Collection[str] | None = None,
        prefill: Sequence[int] = (),
    ) -> None:
        self.position = 0
        self._table = encoding.token_bytes
        self._strict = strict
        self._functions = None if functions is None else frozenset(functions)
        self._messages: list[Message] = []
        self._role: str | None = Role(role).value if role is not None else None
        self._waiting = role is None  # for <|start|>
        self._guessed = False  # in a header that had no <|start|>
        self._header_tokens: list[int] = []
        self._current: Header | None = None  # inside its text
        self._parts: list[str] = []
        self._held: list[int] = []  # inside a text: tokens that may be the header of the next one
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._events: list[Event] = []
        for token in prefill:
            self._step(token)
        self.position = 0

    # What users call.

    def process(self, token: int) -> Sequence[Event]:
        """Take one token and return what it brought about, often nothing.

        Raises:
            ParseError: strict, and the token cannot stand here.
        """
        header = self._current
        plain = 0 <= token < special.FIRST_SPECIAL
        if plain and header is not None and not self._held and not self._events:
            self.position += 1  # nearly every token: text of a message
            text = self._decoder.decode(self._table[token])
            if not text:
                return ()
            self._parts.append(text)
            return (TextDelta(len(self._messages), header, text),)
        self._step(token)
        return self._take_events()

    def finish(self) -> Sequence[Event]:
        """End the answer: what is open is closed. Calling it again changes nothing.

        Raises:
            ParseError: strict, and the answer ends inside a header.
        """
        if self._held:
            self._give_up_held()
        if self._current is not None:
            self._close(None)
        elif not self._waiting:
            self._end_without_message(None)
        return self._take_events()

    @property
    def messages(self) -> list[Message]:
        """The messages that are complete."""
        return list(self._messages)

    @property
    def current_header(self) -> Header | None:
        """The header of the message being written; None between messages and inside a header."""
        return self._current

    @property
    def current_content(self) -> str:
        """The text so far of the message being written."""
        return "".join(self._parts)

    # The state machine: waiting for <|start|>, in a header, in a text.

    def _step(self, token: int) -> None:
        if not 0 <= token < len(self._table):
            self._unknown_token(token)
        elif self._current is not None:
            self._in_text(token)
        elif self._waiting:
            self._before_start(token)
        else:
            self._in_header(token)
        self.position += 1

    def _before_start(self, token: int) -> None:
        if token == special.START:
            self._begin_header()
        elif self._strict:
            raise self._error(f"expected <|start|> but got {self._name(token)}")
        elif token in special.MESSAGE_ENDS or token == special.END_OF_TEXT:
            self._repair("stray_end", f"{self._name(token)} ends nothing")
        else:
            self._repair("missing_start", f"{self._name(token)} came where <|start|> was expected")
            self._begin_header(guessed=True)
            self._in_header(token)

    def _in_header(self, token: int) -> None:
        if token == special.MESSAGE:
            self._header_complete()
        elif not self._strict and token == special.START:
            self._start_in_header()
        elif not self._strict and (token in special.MESSAGE_ENDS or token == special.END_OF_TEXT):
            self._end_without_message(token)
        else:
            self._header_tokens.append(token)
            if len(self._header_tokens) > HEADER_LIMIT and not self._strict:
                self._open_without_message("no <|message|> in sight", more=True)

    def _in_text(self, token: int) -> None:
        if token in special.MESSAGE_ENDS:
            self._give_up_held()
            self._close(token)
        elif self._strict:
            self._text(token)
        elif token == special.END_OF_TEXT:
            self._give_up_held()
            self._repair("end_of_text", "<|endoftext|> ended a message")
            self._close(token)
        elif token == special.MESSAGE:
            self._message_in_text()
        elif token == special.START or (token == special.CHANNEL and not self._held):
            self._give_up_held()
            self._held.append(token)
        elif self._held:
            self._held.append(token)
            if len(self._held) > _INNER_LIMIT:
                self._give_up_held()
        else:
            self._text(token)

    # Headers.

    def _begin_header(self, *, guessed: bool = False) -> None:
        self._waiting = False
        self._guessed = guessed
        self._header_tokens = []

    def _header_complete(self) -> None:
        text = self._decode(self._header_tokens)
        if self._guessed and not looks_like_header(text):
            self._open_without_message("<|message|> came after text that is no header")
            return
        role = implied_role(text) if self._guessed else None
        self._open(self._read(text, self._role or role))

    def _read(self, text: str, role: str | None) -> Header:
        """Understand a header and report its flaws, or raise the first."""
        header, flaws = read_header(text, role)
        if self._strict and flaws:
            raise self._error(f"bad header {text[:200]!r}: {flaws[0].problem}")
        if not self._strict:
            header, mended = mend_call(header, self._functions)
            flaws += mended
        for flaw in flaws:
            self._repair(flaw.kind, flaw.problem, flaw.text)
        return header

    def _start_in_header(self) -> None:
        text = self._decode(self._header_tokens)
        if not text.strip():
            kind: RepairKind = "stray_text" if text else "doubled_start"
            self._repair(kind, "<|start|> came where the header was expected", text)
            self._begin_header()
            if self._role is not None:
                # The prompt held `<|start|>role` and the model wrote it again.
                self._guessed = True
        else:
            self._end_without_message(None)
            self._begin_header()

    def _end_without_message(self, token: int | None) -> None:
        """The header ended (with `token`, or with the answer) and `<|message|>` never came."""
        if self._strict:
            raise self._error("the answer ended inside a message header")
        text = self._decode(self._header_tokens)
        rest = text[header_length(text) :]
        if not rest and token is None:
            if text:
                self._repair("truncated_header", "the answer ended inside a header", text)
            self._between()
        elif not text:
            self._repair("stray_end", f"{self._name(token or 0)} ended a message with no header")
            self._between()
        else:
            self._open_without_message("the message ended without <|message|>")
            self._close(token)

    def _open_without_message(self, reason: str, *, more: bool = False) -> None:
        """Open a message with what is header in the collected tokens, the rest being its text.

        With `more`, the bytes of a last unfinished character wait for the next token.
        """
        collected = b"".join([self._table[token] for token in self._header_tokens])
        text = self._decoder.decode(collected, final=not more)
        length = header_length(text)
        if length:
            self._repair("missing_message", reason)
            header = self._read(text[:length], self._role or implied_role(text))
        else:
            self._repair("missing_header", f"{reason}; read as a final message")
            header = Header(self._role or "assistant", channel="final")
        self._open(header)
        self._append(text[length:])

    # Text.

    def _open(self, header: Header) -> None:
        self._role = None
        self._guessed = False
        self._header_tokens = []
        self._current = header
        self._parts = []
        self._events.append(MessageStarted(len(self._messages), header))

    def _text(self, token: int) -> None:
        self._append(self._decoder.decode(self._table[token]))

    def _append(self, text: str) -> None:
        if text and self._current is not None:
            self._parts.append(text)
            self._events.append(TextDelta(len(self._messages), self._current, text))

    def _close(self, token: int | None) -> None:
        """Complete the open message."""
        self._append(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        header = self._current
        assert header is not None  # callers checked
        message = Message(
            author=Author(role=Role(header.role), name=header.name),
            content=[TextContent(text="".join(self._parts))],
            channel=header.channel,
            recipient=header.recipient,
            content_type=header.content_type,
        )
        self._events.append(MessageDone(len(self._messages), message, token))
        self._messages.append(message)
        self._between()

    def _between(self) -> None:
        self._current, self._role, self._waiting, self._guessed = None, None, True, False
        self._parts, self._header_tokens = [], []

    def _message_in_text(self) -> None:
        """`<|message|>` inside a text: the end of an inner header, or a marker said twice."""
        held, self._held = self._held, []
        starts = [i for i, t in enumerate(held) if i == 0 or t == special.CHANNEL]
        for start in dict.fromkeys((starts[0], starts[-1])) if held else ():
            named = held[start] == special.START
            text = self._decode(held[start + named :])
            role = None if named else "assistant"
            if is_believable(text, role):
                self._held = held[:start]
                self._give_up_held()
                self._repair("missing_end", "a new header began before the message had an end")
                self._close(None)
                self._waiting = False
                self._open(self._read(text, role))
                return
        self._held = held
        self._give_up_held()
        if self._parts:
            self._text(special.MESSAGE)
        else:
            self._repair("doubled_message", "<|message|> came twice")

    def _give_up_held(self) -> None:
        """What looked like a header was text."""
        held, self._held = self._held, []
        for token in held:
            self._text(token)

    # Reports.

    def _unknown_token(self, token: int) -> None:
        if self._strict:
            raise self._error(f"{token} is not a token (0..{len(self._table) - 1})")
        self._repair("unknown_token", f"{token} is not a token; read as U+FFFD")
        if self._current is not None:
            self._give_up_held()
            self._append(self._decoder.decode(b"\xff"))

    def _repair(self, kind: RepairKind, problem: str, text: str = "") -> None:
        self._events.append(Repaired(kind, self.position, problem, text))

    def _error(self, what: str) -> ParseError:
        return ParseError(f"token {self.position}: {what}; StreamParser(strict=False) recovers")

    def _name(self, token: int) -> str:
        return repr(self._table[token].decode("utf-8", "replace"))

    def _decode(self, tokens: list[int]) -> str:
        return b"".join([self._table[token] for token in tokens]).decode("utf-8", "replace")

    def _take_events(self) -> Sequence[Event]:
        if not self._events:
            return ()
        events, self._events = tuple(self._events), []
        return events
