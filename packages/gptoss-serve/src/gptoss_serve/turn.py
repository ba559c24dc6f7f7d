"""What one turn asks of a session: the conversation, how to sample, which tools, what it may cost.

```
Turn(messages=[system_message(), user_message("Hi")], sampling=Sampling(max_tokens=512))
```
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptoss_harmony import Message, Role, Sampling, Tool
from gptoss_harmony.errors import UsageError
from gptoss_harmony.grammar import AnswerFormat
from gptoss_harmony.render import RenderStyle


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a turn may cost beside tokens, which are `Sampling.max_tokens` over all rounds.

    Attributes:
        tool_calls: most calls of builtin tools; None does not count. One call more is answered
            that there are no more; a model that calls yet again ends the turn.
        seconds: wall-clock time after which the turn ends where it stands; None never.
    """

    tool_calls: int | None = 64
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse negative amounts."""
        if self.tool_calls is not None and self.tool_calls < 0:
            raise UsageError(f"the budget of tool calls must be >= 0, not {self.tool_calls}")
        if self.seconds is not None and self.seconds <= 0:
            raise UsageError(f"the budget of seconds must be > 0, not {self.seconds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the client set itself, in its own words, for models with defaults of their own.

    Engines need none of it: the rest of the turn says the same in harmony's words.

    Attributes:
        temperature, top_p: as in `Sampling`.
        effort: how long to think, also in words that gpt-oss does not know.
        summary: which summary of the thoughts is wanted.
        parallel_calls: whether several functions may be called at once.
        format: what the answer must look like, as `text.format` of the Responses API.
    """

    temperature: float | None = None
    top_p: float | None = None
    effort: str | None = None
    summary: str | None = None
    parallel_calls: bool | None = None
    format: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn.

    Attributes:
        messages: the conversation so far, system and developer message included.
        sampling: how to sample; `max_tokens` counts over all rounds with tools.
        tools: those that run here, one object per conversation.
        functions: names of the client's functions, without `functions.`; a call of one ends the
            turn.
        format: what the answer must look like, enforced token by token; None for anything.
        forced: what it must look like until a tool of `tools` was called, instead of `format`;
            None where nothing has to be called.
        pending: calls at the end of the conversation that run before the model goes on, such as
            one that a user had to approve; they are the first parts of the turn.
        budget: what else bounds the turn.
        style: how messages are rendered.
        drop_oldest: leave out the oldest messages where the prompt does not fit, instead of
            failing.
        prefill: text of the answer's header that is written for the model, such as
            ` to=python<|channel|>analysis code<|message|>`; only in the first round.
        one_call: a round ends with its first call, also where the model would go on to another.
        wishes: the client's own words.
    """

    messages: Sequence[Message]
    sampling: Sampling = field(default_factory=Sampling)
    tools: Sequence[Tool] = ()
    functions: Collection[str] = ()
    format: AnswerFormat | None = None
    forced: AnswerFormat | None = None
    pending: Sequence[Message] = ()
    budget: Budget = field(default_factory=Budget)
    style: RenderStyle = field(default_factory=RenderStyle)
    drop_oldest: bool = False
    prefill: str = ""
    one_call: bool = False
    wishes: Wishes = field(default_factory=Wishes)

    def tool_named(self, recipient: str) -> Tool | None:
        """The tool that a call is for, if it runs here."""
        name = recipient.removeprefix("functions.").partition(".")[0]
        return next((tool for tool in self.tools if tool.name == name), None)


def without_oldest(messages: Sequence[Message]) -> list[Message] | None:
    """Leave out the oldest exchange, up to the next user message; None if there is only one.

    System and developer messages and everything from the last user message on stay.
    """
    head = [m for m in messages if m.author.role in (Role.SYSTEM, Role.DEVELOPER)]
    rest = [m for m in messages if m.author.role not in (Role.SYSTEM, Role.DEVELOPER)]
    users = [i for i, message in enumerate(rest) if message.author.role == Role.USER]
    later = [i for i in users if i > 0]
    return [*head, *rest[later[0] :]] if later else None
