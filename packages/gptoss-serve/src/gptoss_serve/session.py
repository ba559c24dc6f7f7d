"""The one loop: a conversation, an engine and tools become events.

```
session = Session(open_engine("auto", "nano"))
async for event in session.respond(Turn(messages=[system_message(), user_message("Hi")])):
    ...
```

The model writes; where it calls a tool that runs here the tool is run, its answer joins the
conversation and the model writes on; where it calls a function of the client the turn ends.
Chat, the Responses API and Chat Completions only translate these events. No HTTP in here.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from gptoss_harmony import (
    Author,
    Constraint,
    Encoding,
    Engine,
    Message,
    Prompt,
    Role,
    Sampling,
    TextContent,
    load_encoding,
)
from gptoss_harmony.errors import ContextOverflow, GrammarError
from gptoss_harmony.grammar import Grammar
from gptoss_serve.events import Event, ToolAnswered, TurnDone, TurnEnd, Usage
from gptoss_serve.pump import TokenPump
from gptoss_serve.reader import AnswerReader
from gptoss_serve.turn import Turn, without_oldest


class Session:
    """Answers turns with one engine; any number at a time.

    Args:
        engine: any engine.
        encoding: None loads the harmony encoding.
    """

    def __init__(self, engine: Engine, *, encoding: Encoding | None = None) -> None:
        self.engine = engine
        self.encoding = encoding or load_encoding()

    async def respond(self, turn: Turn) -> AsyncGenerator[Event, None]:
        """Answer one turn; closing the generator cancels the engine's work.

        Raises:
            HarmonyError: the engine refused or failed; events before it stay valid.
        """
        loop = _Loop(self, turn)
        async with aclosing(loop.run()) as events:
            async for event in events:
                yield event


class _Loop:
    """One turn in progress."""

    def __init__(self, session: Session, turn: Turn) -> None:
        self._engine = session.engine
        self._encoding = session.encoding
        self._turn = turn
        self._messages = list(turn.messages)
        self._added: list[Message] = []
        self._usage = Usage()
        self._index = 0
        self._tool_calls = 0
        self._grammar: Grammar | None = None
        clock = asyncio.get_running_loop().time
        self._clock = clock
        seconds = turn.budget.seconds
        self._deadline = None if seconds is None else clock() + seconds

    async def run(self) -> AsyncGenerator[Event, None]:
        """Rounds until the model or a budget ends the turn."""
        if self._turn.format is not None:
            self._grammar = await asyncio.to_thread(Grammar, self._encoding, self._turn.format)
        prefill = self._encode(self._turn.prefill)
        while True:
            reader = self._reader(prefill)
            async with aclosing(self._round(reader, prefill)) as events:
                async for event in events:
                    yield event
            self._keep(reader.messages)
            prefill = []
            reason = self._reason(reader)
            if reason is not None:
                break
            for index, call in reader.calls:
                yield await self._run_tool(index, call)
        yield TurnDone(reason, self._usage, tuple(self._added))

    def _reader(self, prefill: Sequence[int]) -> AnswerReader:
        browser = next((tool for tool in self._turn.tools if hasattr(tool, "citations")), None)
        return AnswerReader(
            self._encoding,
            builtin=[tool.name for tool in self._turn.tools],
            functions=self._turn.functions,
            first_index=self._index,
            citing=None if browser is None else browser.citations,
            prefill=prefill,
        )

    async def _round(
        self, reader: AnswerReader, prefill: Sequence[int]
    ) -> AsyncGenerator[Event, None]:
        """One answer of the engine."""
        prompt = await asyncio.to_thread(self._prompt, prefill)  # long texts take a while
        sampling = self._sampling()
        constraint = self._constraint(sampling, prefill)

        def start() -> Any:
            return self._engine.generate(prompt, sampling, constraint=constraint)

        async with TokenPump(start) as pump:
            timer = self._start_timer(pump)
            try:
                async for outputs in pump:
                    for event in reader.read(outputs):
                        yield event
                for event in reader.finish():
                    yield event
            finally:
                if timer is not None:
                    timer.cancel()
        self._index = reader.index
        self._usage += Usage(
            len(prompt.tokens), pump.cached_tokens, reader.output_tokens, reader.reasoning_tokens
        )

    def _start_timer(self, pump: TokenPump) -> asyncio.TimerHandle | None:
        if self._deadline is None:
            return None
        return asyncio.get_running_loop().call_at(self._deadline, pump.cancel)

    def _prompt(self, prefill: Sequence[int]) -> Prompt:
        while True:
            prompt = self._rendered()
            room = self._engine.spec.context_length - len(prompt.tokens) - len(prefill)
            if room > 0:
                break
            shorter = without_oldest(self._messages) if self._turn.drop_oldest else None
            if shorter is None:
                raise ContextOverflow(
                    f"the conversation has {len(prompt.tokens)} tokens but the context of "
                    f"{self._engine.spec.model_id} has {self._engine.spec.context_length}; "
                    "shorten it, or ask for truncation: auto"
                )
            self._messages = shorter
        return dataclasses.replace(prompt, tokens=(*prompt.tokens, *prefill))

    def _rendered(self) -> Prompt:
        return self._encoding.render_prompt(self._messages, style=self._turn.style)

    def _sampling(self) -> Sampling:
        sampling = self._turn.sampling
        if sampling.max_tokens is None:
            return sampling
        left = max(0, sampling.max_tokens - self._usage.output_tokens)
        return dataclasses.replace(sampling, max_tokens=left)

    def _constraint(self, sampling: Sampling, prefill: Sequence[int]) -> Constraint | None:
        if self._grammar is None or prefill:
            return None
        try:
            return self._grammar.constraint(budget=sampling.max_tokens)
        except GrammarError:
            if sampling.max_tokens is None:
                raise
            # Too few tokens for any whole answer: a valid beginning is what there is room for.
            return self._grammar.constraint()

    def _reason(self, reader: AnswerReader) -> TurnEnd | None:
        """Why the turn is over, or None where tools must run first."""
        if reader.finish_reason == "cancelled":
            return "time" if self._is_late() else "cancelled"
        if reader.asked_client:
            return "call"
        if reader.finish_reason == "length":
            return "length"
        if not reader.calls:
            return "stop"
        self._tool_calls += len(reader.calls)
        most = self._turn.budget.tool_calls
        if most is not None and self._tool_calls > most:
            return "tool_calls"
        return "time" if self._is_late() else None

    def _is_late(self) -> bool:
        return self._deadline is not None and self._clock() >= self._deadline

    async def _run_tool(self, index: int, call: Message) -> ToolAnswered:
        recipient = call.recipient or ""
        name = recipient.removeprefix("functions.")
        tool = self._turn.tool_named(recipient)
        if tool is None:
            known = [*(t.name for t in self._turn.tools), *sorted(self._turn.functions)]
            text = f"There is no tool {recipient!r}. Tools: {', '.join(known) or 'none'}."
            self._keep([_tool_reply(call, text)])
            return ToolAnswered(index, name, text, failed=True)
        try:
            async with asyncio.timeout_at(self._deadline):
                replies = await tool.process(call)
        except TimeoutError:
            replies = [_tool_reply(call, "The time for this turn is over; the call was stopped.")]
        self._keep(replies)
        return ToolAnswered(index, name, "\n".join(_text(reply) for reply in replies))

    def _keep(self, messages: Sequence[Message]) -> None:
        self._messages += messages
        self._added += messages

    def _encode(self, text: str) -> list[int]:
        return self._encoding.encode(text, allowed_special="all") if text else []


def _tool_reply(call: Message, text: str) -> Message:
    author = Author(role=Role.TOOL, name=call.recipient or "unknown")
    reply = Message(author=author, content=[TextContent(text=text)]).with_recipient("assistant")
    return reply if call.channel is None else reply.with_channel(call.channel)


def _text(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextContent))
