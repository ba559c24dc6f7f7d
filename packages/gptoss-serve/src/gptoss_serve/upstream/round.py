"""A round that an upstream answers: asked, read, and cut off where the turn's time is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import httpx

from gptoss_harmony import Message
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.events import Event, Usage
from gptoss_serve.rounds import RoundStart, citing_of
from gptoss_serve.turn import Turn, without_oldest
from gptoss_serve.upstream.dialect import Dialect
from gptoss_serve.upstream.endpoint import Endpoint
from gptoss_serve.upstream.model import UpstreamModel
from gptoss_serve.upstream.offered import Offer
from gptoss_serve.upstream.parts import PartLine
from gptoss_serve.upstream.stream import Json, ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What all rounds of a session share.

    Attributes:
        endpoint: what is asked.
        http: asks.
        dialect: how.
        model: counts.
    """

    endpoint: Endpoint
    http: httpx.AsyncClient
    dialect: Dialect
    model: UpstreamModel


class UpstreamRound:
    """One answer of an upstream; the attributes are those of the `Round` protocol.

    Args:
        turn: what was asked of us.
        start: where the round begins.
        caller: whom to ask, and how.
    """

    def __init__(self, turn: Turn, start: RoundStart, *, caller: Caller) -> None:
        self._turn = turn
        self._start = start
        self._caller = caller
        self._offer = Offer(turn)
        self._line = PartLine(
            first_index=start.index,
            citing=citing_of(turn),
            one_call=turn.wishes.parallel_calls is False,
        )
        self.conversation = start.messages
        self.finish_reason: str | None = None
        self.usage = Usage()

    @property
    def messages(self) -> list[Message]:
        """The complete messages."""
        return self._line.messages

    @property
    def calls(self) -> list[tuple[int, Message]]:
        """Calls of tools that run here."""
        return self._line.calls

    @property
    def asked_client(self) -> bool:
        """Whether a function of the client was called."""
        return self._line.asked_client

    @property
    def index(self) -> int:
        """Of the next part."""
        return self._line.index

    async def events(self) -> AsyncGenerator[Event, None]:
        """Ask, in other words or with less where that helps and nothing has come yet.

        Raises:
            ServeError: the upstream refused, failed, or cannot be reached.
        """
        if self._start.max_tokens == 0:
            self.finish_reason = "length"
            return
        self._caller.model.begin()
        try:
            async with aclosing(self._attempts()) as events:
                async for event in events:
                    yield event
        finally:
            self._caller.model.end(self.usage)

    async def _attempts(self) -> AsyncGenerator[Event, None]:
        dialect = self._caller.dialect
        begun = False
        while True:
            body = dialect.body(self._turn, self._offer, self._start, self.conversation)
            try:
                async with aclosing(self._answer(body)) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except InvalidRequest as error:
                if begun or not (dialect.can_adapt(body, error) or self._shorten(error)):
                    raise

    async def _answer(self, body: Json) -> AsyncGenerator[Event, None]:
        caller = self._caller
        reader = caller.dialect.reader(self._offer, self._line)
        late = False
        async with aclosing(ask(caller.http, caller.endpoint, body)) as wires:
            while True:
                try:
                    async with asyncio.timeout_at(self._start.deadline):
                        wire = await anext(wires)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    late = True
                    break
                for event in reader.read(wire):
                    yield event
        caller.dialect.learn(reader)
        self.usage = reader.usage
        failure = None if late else reader.failure()
        if failure is not None:
            raise failure
        self.finish_reason = "cancelled" if late else reader.finish_reason
        for event in self._line.end_all(complete=self.finish_reason == "stop"):
            yield event

    def _shorten(self, error: InvalidRequest) -> bool:
        """Leave out the oldest exchange, where the client allows it and that may help."""
        if error.code != "context_length_exceeded" or not self._turn.drop_oldest:
            return False
        shorter = without_oldest(self.conversation)
        self.conversation = shorter or self.conversation
        return shorter is not None
