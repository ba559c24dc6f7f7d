"""One response being made: its events in batches, and its record in the store.

The order at the end matters: the items are done, then the record is written, then the client hears
the last event. What fails or is stopped in between ends with another last event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from gptoss_harmony import Message
from gptoss_serve.errors import as_serve_error
from gptoss_serve.events import Event, PartDone, TurnDone
from gptoss_serve.responses.parts import ItemStyle, Json
from gptoss_serve.responses.prepare import Prepared
from gptoss_serve.responses.running import LEASE_SECONDS
from gptoss_serve.responses.store import Record
from gptoss_serve.responses.writer import ResponseWriter

if TYPE_CHECKING:
    from gptoss_serve.responses.service import ResponseService

_log = logging.getLogger("gptoss_serve")


class Answering:
    """One response being made.

    Args:
        service: what it is made with.
        prepared: what was asked.
        response: the object as `new_response` made it; it is changed in place.
        client: who asked.

    Attributes:
        prepared: as given.
        response: the object so far.
        client: as given.
    """

    def __init__(
        self, service: ResponseService, prepared: Prepared, response: Json, *, client: str = ""
    ) -> None:
        self.prepared = prepared
        self.response = response
        self.client = client
        self._service = service
        self._added: list[Message] = []
        self._states: Mapping[str, Any] = {}
        self._events: list[Json] = []  # so far, of a background response
        self._is_over = False
        reasoning = prepared.request.reasoning
        style = ItemStyle(
            encoding=service.session.encoding,
            reasoning=service.settings.reasoning,
            summary=reasoning is not None and reasoning.wants_summary,
            include=prepared.request.include or (),
            container_id=prepared.container_id,
        )
        self._writer = ResponseWriter(response, prepared.plan, style)

    @property
    def in_background(self) -> bool:
        """Whether the response is made whether or not somebody listens."""
        return bool(self.response["background"])

    async def finished(self) -> Json:
        """The final object, for clients that do not stream."""
        async with aclosing(self.batches()) as batches:
            async for _ in batches:
                pass
        return self.response

    async def batches(self) -> AsyncGenerator[list[Json], None]:
        """Events in batches. A failure before the first is raised, a later one is an event."""
        begun = self.in_background
        async with aclosing(self._answer()) as batches:
            try:
                async for batch in batches:
                    begun = True
                    yield batch
            except asyncio.CancelledError:
                if self.in_background and not self._is_over:
                    batch = self._writer.cancel()
                    await _to_the_end(self.keep(batch))
                    yield batch  # its followers want to hear of it
                raise
            except Exception as error:
                failure = as_serve_error(error)
                if failure.status == 500:  # the others say all there is to say
                    _log.warning("response %s failed", self.response["id"], exc_info=error)
                if not begun:
                    raise failure from error
                if not self._is_over:
                    batch = self._writer.fail(failure)
                    await self._keep_failed(batch)
                    yield batch

    async def keep(self, last: list[Json] | None = None) -> None:
        """Write the record into the store, if the client wants it kept.

        Args:
            last: the last events, which nobody has heard yet; None while it is being made.
        """
        store = self._service.store
        if store is None or not self.response["store"]:
            return
        prepared = self.prepared
        is_stream = self.in_background and bool(prepared.request.stream)
        record = Record(
            response=self.response,
            input_items=prepared.input_items,
            messages=[m.to_dict() for m in (*prepared.conversation, *self._added)],
            developer=prepared.developer,
            calls=prepared.calls,
            tool_states=dict(self._states),
            include=list(prepared.request.include or ()),
            is_stream=is_stream,
            events=[*self._events, *(last or ())] if is_stream else [],
        )
        if not self.in_background:
            await store.put(record, owner=prepared.owner)
        elif self.response["status"] == "queued":
            await store.put(record, lease=LEASE_SECONDS, owner=prepared.owner)
        else:
            await store.replace(record, last=last is not None)

    async def _keep_failed(self, last: list[Json]) -> None:
        try:
            await self.keep(last)
        except Exception as error:  # it may be the store that failed; the client hears of that
            _log.warning("cannot keep response %s", self.response["id"], exc_info=error)

    async def _answer(self) -> AsyncGenerator[list[Json], None]:
        """Make the response; what is closed early is cancelled."""
        if self.in_background:
            yield self._sent(self._writer.queue())
        begun = False
        async with self._service.turn(self.prepared, client=self.client) as (events, states):
            async for event in events:
                if not begun:
                    begun = True
                    yield self._sent(self._writer.begin())
                    if self.in_background:
                        await self.keep()  # other servers see that it has begun
                batch = self._written(event)
                if isinstance(event, TurnDone):
                    self._added, self._states = list(event.messages), states()
                    if self.response["store"]:
                        self._service.hold(self.response["id"], self._states)
                    yield self._sent(batch[:-1])
                    batch = batch[-1:]
                    await _to_the_end(self.keep(batch))
                    self._is_over = True
                yield self._sent(batch)

    def _written(self, event: Event) -> list[Json]:
        batch = self._writer.write(event)
        if isinstance(event, PartDone | TurnDone):
            self._note_calls()
        return batch

    def _note_calls(self) -> None:
        """Remember whom the calls of the response were for."""
        for item in self.response["output"]:
            if (called := self.prepared.plan.recipient_of(item)) is not None:
                answered, recipient = called
                self.prepared.calls[answered] = recipient

    def _sent(self, batch: list[Json]) -> list[Json]:
        if self.in_background:
            self._events += batch
        return batch


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work that must not be split: whoever cancels meanwhile comes too late."""
    task, waiter = asyncio.ensure_future(work), asyncio.current_task()
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if waiter is not None:
                waiter.uncancel()
    task.result()
