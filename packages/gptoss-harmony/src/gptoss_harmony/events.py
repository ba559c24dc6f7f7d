"""What a `StreamParser` reports: messages begin, grow and end, and what had to be repaired.

```
for token in answer:
    for event in parser.process(token):
        match event:
            case TextDelta(header=Header(channel="final"), text=text):
                print(text, end="")
            case MessageDone(message=message):
                history.append(message)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openai_harmony import Message

from gptoss_harmony.header import FlawKind, Header

# What only a stream can get wrong; headers have kinds of their own.
StreamFlawKind = Literal[
    "missing_start",
    "missing_message",
    "missing_end",
    "missing_header",
    "truncated_header",
    "doubled_start",
    "doubled_message",
    "stray_end",
    "stray_text",
    "end_of_text",
    "unknown_token",
]
RepairKind = FlawKind | StreamFlawKind


@dataclass(frozen=True, slots=True)
class MessageStarted:
    """A header is complete; text follows.

    Attributes:
        index: number of the message in this stream, from 0.
        header: role, channel, recipient and content type.
    """

    index: int
    header: Header

    @property
    def role(self) -> str:
        """Who speaks."""
        return self.header.role

    @property
    def channel(self) -> str | None:
        """Where."""
        return self.header.channel

    @property
    def recipient(self) -> str | None:
        """To whom."""
        return self.header.recipient


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the message that started last; never empty, always whole characters.

    Attributes:
        index: number of the message in this stream, from 0.
        header: of the message.
        text: what is new.
    """

    index: int
    header: Header
    text: str


@dataclass(frozen=True, slots=True)
class MessageDone:
    """A message is complete.

    Attributes:
        index: number of the message in this stream, from 0.
        message: the message with its whole text.
        end: the id that ended it (`<|end|>`, `<|return|>`, `<|call|>`); None where none did.
    """

    index: int
    message: Message
    end: int | None


@dataclass(frozen=True, slots=True)
class Repaired:
    """Something was not harmony and was read as the nearest thing that is.

    Attributes:
        kind: what was wrong; docs/explanation/harmony.md has the table.
        position: index of the token at which it was noticed, from 0 at the parser's first.
        problem: what was wrong, as a sentence.
        text: characters that became part of no message and no header field.
    """

    kind: RepairKind
    position: int
    problem: str
    text: str = ""


Event = MessageStarted | TextDelta | MessageDone | Repaired
