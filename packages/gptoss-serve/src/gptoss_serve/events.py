"""What happens in a turn: parts begin, grow and end; tools answer; the turn is done.

```
async for event in session.respond(turn):
    match event:
        case PartDelta(kind="answer", text=text):
            print(text, end="")
        case TurnDone(reason=reason, usage=usage):
            print(reason, usage.output_tokens)
```

A part is one message of the model. Its `index` counts from 0 through the whole turn, over all
rounds with tools, and parts never overlap: one is done before the next starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gptoss_harmony import Message

# reasoning: analysis; preamble: commentary for the user; answer: final text; call: of a function
# that the client has; builtin: of a tool that runs here.
PartKind = Literal["reasoning", "preamble", "answer", "call", "builtin"]

# stop: the model finished; call: it waits for the client's functions; length, tool_calls and time:
# a budget ran out; cancelled: somebody stopped it.
TurnEnd = Literal["stop", "call", "length", "tool_calls", "time", "cancelled"]


@dataclass(frozen=True, slots=True)
class Citation:
    """A link in an answer: half-open range of characters of the part's text."""

    start: int
    end: int
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of an answer with its natural-log probability and the likeliest alternatives."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PartStarted:
    """A message begins; `name` is the recipient of a call."""

    index: int
    kind: PartKind
    name: str | None = None


@dataclass(frozen=True, slots=True)
class PartDelta:
    """More text of the part that started last."""

    index: int
    kind: PartKind
    text: str
    logprobs: tuple[ScoredToken, ...] = ()
    citations: tuple[Citation, ...] = ()


@dataclass(frozen=True, slots=True)
class PartDone:
    """A message is over; `complete` is False where a budget or the user cut it short."""

    index: int
    kind: PartKind
    name: str | None
    text: str
    complete: bool


@dataclass(frozen=True, slots=True)
class ToolAnswered:
    """A builtin tool has answered the call of part `index`.

    Attributes:
        index: of the part.
        name: the recipient of the call.
        text: what the model reads.
        failed: whether the call came to nothing.
        report: what else the tool tells programs, such as the address of a page.
    """

    index: int
    name: str
    text: str
    failed: bool = False
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerAsked:
    """A remote server is asked for its tools, before the model begins."""

    label: str


@dataclass(frozen=True, slots=True)
class ServerListed:
    """The server has told its tools; or `error` says why not."""

    label: str
    tools: tuple[Mapping[str, Any], ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Mended:
    """The model wrote something that is not harmony; it was read as the nearest thing."""

    problem: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a turn, summed over its rounds; cached and reasoning are shares of the others."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class TurnDone:
    """The end of a turn.

    Attributes:
        reason: why it ended.
        usage: tokens of all rounds.
        messages: what the turn adds to the conversation, in the model's own words.
    """

    reason: TurnEnd
    usage: Usage
    messages: tuple[Message, ...] = field(default=())


Event = (
    PartStarted
    | PartDelta
    | PartDone
    | ToolAnswered
    | ServerAsked
    | ServerListed
    | Mended
    | TurnDone
)
