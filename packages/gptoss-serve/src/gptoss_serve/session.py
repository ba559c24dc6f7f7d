"""The one loop: a conversation, a model and tools become events.

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

from gptoss_harmony import Author, Encoding, Engine, Message, Role, TextContent, load_encoding
from gptoss_harmony.grammar import Grammar
from gptoss_serve.events import (
    Event,
    PartDelta,
    PartDone,
    PartStarted,
    ToolAnswered,
    TurnDone,
    TurnEnd,
    Usage,
)
from gptoss_serve.rounds import EngineRound, Round, RoundStart
from gptoss_serve.toolbox import Reporting
from gptoss_serve.turn import Turn
from gptoss_serve.watch import GenerationEnd, GenerationStart, Unwatched, Watch

_NO_MORE_CALLS = (
    "This call was not made; answer with what you know. The limit of tool calls is reached"
)


class Session:
    """Answers turns with one engine; any number at a time.

    Args:
        engine: any engine.
        encoding: None loads the harmony encoding.
        watch: hears of every answer and every call of a tool.
    """

    def __init__(
        self, engine: Engine, *, encoding: Encoding | None = None, watch: Watch | None = None
    ) -> None:
        self.engine = engine
        self.watch = watch or Unwatched()
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

    async def grammar(self, turn: Turn) -> Grammar | None:
        """The grammar that answers of the turn are held to."""
        if turn.format is None:
            return None
        return await asyncio.to_thread(Grammar, self.encoding, turn.format)

    def round(self, turn: Turn, start: RoundStart) -> Round:
        """The next answer of the model; the seam where something else than an engine answers."""
        return EngineRound(self.engine, self.encoding, turn, start)

    async def close(self) -> None:
        """Give back what answering needed; the engine stays open."""


class _Loop:
    """One turn in progress."""

    def __init__(self, session: Session, turn: Turn) -> None:
        self._session = session
        self._turn = turn
        self._messages = list(turn.messages)
        self._added: list[Message] = []
        self._usage = Usage()
        self._index = 0
        self._tool_calls = 0
        self._was_refused = False
        clock = asyncio.get_running_loop().time
        self._clock = clock
        seconds = turn.budget.seconds
        self._deadline = None if seconds is None else clock() + seconds

    async def run(self) -> AsyncGenerator[Event, None]:
        """Rounds until the model or a budget ends the turn."""
        async with aclosing(self._run_pending()) as pending:
            async for event in pending:
                yield event
        turn = self._turn
        if turn.forced is not None:
            turn = dataclasses.replace(turn, format=turn.forced)
        grammar = await self._session.grammar(turn)
        first = True
        while True:
            start = RoundStart(
                messages=list(self._messages),
                index=self._index,
                max_tokens=self._tokens_left(),
                first=first,
                deadline=self._deadline,
                grammar=grammar,
            )
            answer = self._session.round(turn, start)
            with self._session.watch.generation(self._started(start)) as end:
                async with aclosing(answer.events()) as events:
                    async for event in events:
                        yield event
                end(_ended(answer))
            self._note(answer)
            first = False
            reason = self._reason(answer)
            # A model that calls several tools at once may call ours beside the client's.
            for index, call in answer.calls if reason in (None, "call") else ():
                yield await self._run_tool(index, call)
            if reason is not None:
                break
            if turn is not self._turn:  # what had to be called was called
                turn = self._turn
                grammar = await self._session.grammar(turn)
        yield TurnDone(reason, self._usage, tuple(self._added))

    async def _run_pending(self) -> AsyncGenerator[Event, None]:
        """Run the calls that wait in the conversation, as the first parts of the turn."""
        for call in self._turn.pending:
            index, self._index = self._index, self._index + 1
            name = (call.recipient or "").removeprefix("functions.")
            text = _text(call)
            yield PartStarted(index, "builtin", name)
            if text:
                yield PartDelta(index, "builtin", text)
            yield PartDone(index, "builtin", name, text, True)
            yield await self._run_tool(index, call)

    def _started(self, start: RoundStart) -> GenerationStart:
        """For whoever watches."""
        return GenerationStart(
            operation="chat",
            model=self._session.engine.spec.model_id,
            sampling=dataclasses.replace(self._turn.sampling, max_tokens=start.max_tokens),
            messages=tuple(start.messages),
        )

    def _note(self, answer: Round) -> None:
        """Take over what a round came to."""
        self._messages = list(answer.conversation)
        self._keep(answer.messages)
        self._index = answer.index
        self._usage += answer.usage

    def _tokens_left(self) -> int | None:
        most = self._turn.sampling.max_tokens
        return None if most is None else max(0, most - self._usage.output_tokens)

    def _reason(self, answer: Round) -> TurnEnd | None:
        """Why the turn is over, or None where tools must run first."""
        if answer.finish_reason == "cancelled":
            return "time" if self._is_late() else "cancelled"
        if answer.asked_client:
            return "call"
        if answer.finish_reason == "length":
            return "length"
        if not answer.calls:
            return "stop"
        if self._was_refused:  # it was told that there are no more calls, and calls again
            return "tool_calls"
        return "time" if self._is_late() else None

    def _is_late(self) -> bool:
        return self._deadline is not None and self._clock() >= self._deadline

    async def _run_tool(self, index: int, call: Message) -> ToolAnswered:
        with self._session.watch.tool(call) as end:
            answered = await self._call_tool(index, call)
            end(answered)
        return answered

    async def _call_tool(self, index: int, call: Message) -> ToolAnswered:
        recipient = call.recipient or ""
        name = recipient.removeprefix("functions.")
        tool = self._turn.tool_named(recipient)
        most = self._turn.budget.tool_calls
        if most is not None and self._tool_calls >= most:
            self._was_refused = True
            text = f"{_NO_MORE_CALLS} ({most})."
            self._keep([_tool_reply(call, text)])
            return ToolAnswered(index, name, text, failed=True)
        self._tool_calls += 1
        if tool is None:
            known = [*(t.name for t in self._turn.tools), *sorted(self._turn.functions)]
            text = f"There is no tool {recipient!r}. Tools: {', '.join(known) or 'none'}."
            self._keep([_tool_reply(call, text)])
            return ToolAnswered(index, name, text, failed=True)
        try:
            async with asyncio.timeout_at(self._deadline):
                replies = await tool.process(call)
        except TimeoutError:
            text = "The time for this turn is over; the call was stopped."
            self._keep([_tool_reply(call, text)])
            return ToolAnswered(index, name, text, failed=True)
        self._keep(replies)
        report = tool.report() if isinstance(tool, Reporting) else {}
        text = "\n".join(_text(reply) for reply in replies)
        return ToolAnswered(index, name, text, failed=bool(report.get("failed")), report=report)

    def _keep(self, messages: Sequence[Message]) -> None:
        self._messages += messages
        self._added += messages


def _ended(answer: Round) -> GenerationEnd:
    return GenerationEnd(
        usage=answer.usage, reason=answer.finish_reason, messages=tuple(answer.messages)
    )


def _tool_reply(call: Message, text: str) -> Message:
    author = Author(role=Role.TOOL, name=call.recipient or "unknown")
    reply = Message(author=author, content=[TextContent(text=text)]).with_recipient("assistant")
    return reply if call.channel is None else reply.with_channel(call.channel)


def _text(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextContent))
