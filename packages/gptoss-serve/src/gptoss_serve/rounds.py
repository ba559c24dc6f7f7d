"""One answer of the model within a turn: what the loop needs to know of it, and an engine's.

```
answer = EngineRound(engine, encoding, turn, start)
async for event in answer.events(): ...
answer.messages, answer.calls, answer.finish_reason
```

A turn has one round, and one more after each time that tools of ours were run. The loop in
`session` cares only for the `Round` protocol; `upstream.round` has the second kind.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from gptoss_harmony import Constraint, Encoding, Engine, Message, Prompt, Sampling
from gptoss_harmony.errors import ContextOverflow, GrammarError
from gptoss_harmony.grammar import Grammar
from gptoss_serve.events import Event, Usage
from gptoss_serve.pump import TokenPump
from gptoss_serve.reader import AnswerReader, Citing
from gptoss_serve.turn import Turn, without_oldest


@dataclasses.dataclass(slots=True, kw_only=True)
class RoundStart:
    """Where a round begins.

    Attributes:
        messages: the conversation so far.
        index: of the first part.
        max_tokens: what is left of the turn's budget; None for any number.
        first: whether it is the turn's first round.
        deadline: on the loop's clock; None never.
        grammar: of the answer, for engines that hold to it.
    """

    messages: list[Message]
    index: int = 0
    max_tokens: int | None = None
    first: bool = True
    deadline: float | None = None
    grammar: Grammar | None = None


class Round(Protocol):
    """One answer; the properties hold once its events are over."""

    def events(self) -> AsyncGenerator[Event, None]:
        """What happens; closing the generator stops the model."""
        ...

    @property
    def messages(self) -> list[Message]:
        """The complete messages, in the model's own words."""
        ...

    @property
    def calls(self) -> list[tuple[int, Message]]:
        """Calls of tools that run here, as (part index, message)."""
        ...

    @property
    def asked_client(self) -> bool:
        """Whether a function of the client was called."""
        ...

    @property
    def finish_reason(self) -> str | None:
        """`stop`, `length` or `cancelled`."""
        ...

    @property
    def index(self) -> int:
        """Of the next part."""
        ...

    @property
    def usage(self) -> Usage:
        """Tokens of this round."""
        ...

    @property
    def conversation(self) -> list[Message]:
        """What the model was given, which may be shorter than what it was to be given."""
        ...


class EngineRound:
    """A round that an engine of this process answers.

    Args:
        engine: any engine.
        encoding: the harmony encoding.
        turn: what was asked.
        start: where the round begins.
    """

    def __init__(self, engine: Engine, encoding: Encoding, turn: Turn, start: RoundStart) -> None:
        self._engine = engine
        self._encoding = encoding
        self._turn = turn
        self._start = start
        self._prefill = encoding.encode(turn.prefill, allowed_special="all") if start.first else []
        self._reader = AnswerReader(
            encoding,
            builtin=[tool.name for tool in turn.tools],
            functions=turn.functions,
            first_index=start.index,
            citing=citing_of(turn),
            prefill=self._prefill,
        )
        self.conversation = start.messages
        self.usage = Usage()
        self.messages: list[Message] = []

    @property
    def calls(self) -> list[tuple[int, Message]]:
        """Calls of tools that run here."""
        return self._reader.calls

    @property
    def asked_client(self) -> bool:
        """Whether a function of the client was called."""
        return self._reader.asked_client

    @property
    def finish_reason(self) -> str | None:
        """The engine's."""
        return self._reader.finish_reason

    @property
    def index(self) -> int:
        """Of the next part."""
        return self._reader.index

    async def events(self) -> AsyncGenerator[Event, None]:
        """Tokens, read as they come."""
        prompt = await asyncio.to_thread(self._prompt)  # long texts take a while
        sampling = dataclasses.replace(self._turn.sampling, max_tokens=self._start.max_tokens)
        room = self._engine.spec.context_length - len(prompt.tokens)
        constraint = await asyncio.to_thread(self._constraint, sampling, room)

        def generate() -> Any:
            return self._engine.generate(prompt, sampling, constraint=constraint)

        async with TokenPump(generate) as pump:
            timer = self._start_timer(pump)
            try:
                async for outputs in pump:
                    for event in self._reader.read(outputs):
                        yield event
                        if self._has_enough():
                            break
                    if self._has_enough():
                        break
                else:
                    for event in self._reader.finish():
                        yield event
            finally:
                if timer is not None:
                    timer.cancel()
        reader = self._reader
        self.messages = reader.messages
        self.usage = Usage(
            len(prompt.tokens), pump.cached_tokens, reader.output_tokens, reader.reasoning_tokens
        )

    def _has_enough(self) -> bool:
        """Whether the one call that is allowed has been made."""
        return self._turn.one_call and (self._reader.asked_client or bool(self._reader.calls))

    def _start_timer(self, pump: TokenPump) -> asyncio.TimerHandle | None:
        if self._start.deadline is None:
            return None
        return asyncio.get_running_loop().call_at(self._start.deadline, pump.cancel)

    def _prompt(self) -> Prompt:
        while True:
            prompt = self._encoding.render_prompt(self.conversation, style=self._turn.style)
            room = self._engine.spec.context_length - len(prompt.tokens) - len(self._prefill)
            if room > 0:
                break
            shorter = without_oldest(self.conversation) if self._turn.drop_oldest else None
            if shorter is None:
                raise ContextOverflow(
                    f"the conversation has {len(prompt.tokens)} tokens but the context of "
                    f"{self._engine.spec.model_id} has {self._engine.spec.context_length}; "
                    "shorten it, or ask for truncation: auto"
                )
            self.conversation = shorter
        return dataclasses.replace(prompt, tokens=(*prompt.tokens, *self._prefill))

    def _constraint(self, sampling: Sampling, room: int) -> Constraint | None:
        grammar = self._start.grammar
        if grammar is None or self._prefill:
            return None
        most = sampling.max_tokens
        try:
            return grammar.constraint(budget=room if most is None else min(most, room))
        except GrammarError:
            # Too few tokens for any whole answer: a valid beginning is what there is room for.
            return grammar.constraint()


def citing_of(turn: Turn) -> Callable[[], Citing] | None:
    """What makes the rewriter of an answer's citations, if a tool of the turn cites."""
    browser = next((tool for tool in turn.tools if hasattr(tool, "citations")), None)
    return None if browser is None else browser.citations
