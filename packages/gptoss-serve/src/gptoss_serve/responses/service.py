"""The Responses API without HTTP: create, get, cancel, delete.

A foreground response lives as long as somebody reads its events; a background one has a task of
its own and keeps its events, so that a stream can be resumed after any of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from gptoss_harmony import Message
from gptoss_serve.errors import InvalidRequest, NotFound, as_serve_error
from gptoss_serve.events import PartDone, TurnDone
from gptoss_serve.limits import Admission
from gptoss_serve.models import ModelNames
from gptoss_serve.responses.parts import ItemStyle, Json, new_id
from gptoss_serve.responses.prepare import Prepared, prepare
from gptoss_serve.responses.response import new_response
from gptoss_serve.responses.running import Running
from gptoss_serve.responses.schema import ResponsesRequest
from gptoss_serve.responses.store import Record, ResponseStore
from gptoss_serve.responses.tools import plan_tools
from gptoss_serve.responses.writer import ResponseWriter
from gptoss_serve.session import Session
from gptoss_serve.settings import ServerSettings
from gptoss_serve.toolbox import Toolbox, tool_states

_log = logging.getLogger("gptoss_serve")


class ResponseService:
    """Answers requests of the Responses API.

    Args:
        session: over the engine.
        toolbox: the tools that run here.
        models: the names of the model.
        admission: how many answers at once.
        settings: what the operator decided.
        store: None keeps nothing.
    """

    def __init__(
        self,
        session: Session,
        *,
        toolbox: Toolbox,
        models: ModelNames,
        admission: Admission,
        settings: ServerSettings,
        store: ResponseStore | None,
    ) -> None:
        self._session = session
        self._toolbox = toolbox
        self._models = models
        self._admission = admission
        self._settings = settings
        self._store = store
        self._running: dict[str, Running] = {}

    async def create(self, request: ResponsesRequest) -> Answering:
        """Check a request and get ready to answer it.

        Raises:
            ServeError: it cannot be served.
        """
        model = self._models.resolve(request.model)
        plan = plan_tools(request.tools or [], request.tool_choice, self._toolbox)
        if request.background and self._store is None:
            raise InvalidRequest("background needs a store; this server has none", param="store")
        previous = None
        if request.previous_response_id is not None:
            previous = await self._previous(request.previous_response_id)
        prepared = prepare(request, plan, self._session.engine, previous)
        store = self._store is not None and request.store is not False
        response = new_response(request, plan, response_id=new_id("resp"), model=model, store=store)
        return Answering(self, prepared, response)

    async def start(self, answering: Answering) -> Running:
        """Answer in the background."""
        await self.keep(answering, events=[])
        running = Running(answering.batches())
        self._running[answering.response["id"]] = running
        running.task.add_done_callback(lambda _: self._running.pop(answering.response["id"], None))
        return running

    async def get(self, response_id: str) -> Json:
        """The response as it stands.

        Raises:
            NotFound: there is none.
        """
        response: Json = (await self._record(response_id)).response
        return response

    async def input_items(self, response_id: str) -> list[Json]:
        """What the request brought."""
        return (await self._record(response_id)).input_items

    async def follow(
        self, response_id: str, starting_after: int
    ) -> AsyncGenerator[list[Json], None]:
        """The events of a background response after a sequence number, to its end."""
        running = self._running.get(response_id)
        if running is not None:
            return running.follow(starting_after)
        record = await self._record(response_id)
        if not record.events:
            raise InvalidRequest(
                "only a response that was made with background and stream can be streamed again",
                param="stream",
            )
        return _once([e for e in record.events if e["sequence_number"] > starting_after])

    async def cancel(self, response_id: str) -> Json:
        """Stop a background response and return it.

        Raises:
            InvalidRequest: it is not a background response.
        """
        running = self._running.get(response_id)
        if running is not None:
            await running.cancel()
        response = await self.get(response_id)
        if not response["background"]:
            raise InvalidRequest("only background responses can be cancelled", param="response_id")
        return response

    async def delete(self, response_id: str) -> Json:
        """Forget a response, stopping it if it runs."""
        running = self._running.get(response_id)
        if running is not None:
            await running.cancel()
        if self._store is None or not await self._store.delete(response_id):
            raise _missing(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    async def close(self) -> None:
        """Stop what runs in the background."""
        for running in list(self._running.values()):
            await running.cancel()

    async def run(self, answering: Answering) -> AsyncGenerator[list[Json], None]:
        """Answer, giving events in batches; what is closed early is cancelled."""
        prepared, writer = answering.prepared, answering.writer
        async with self._admission.slot():
            names = prepared.plan.builtin
            tools = await self._toolbox.open(names, states=prepared.tool_states)
            try:
                turn = prepared.turn(self._session.engine, tools, self._settings)
                async with aclosing(self._session.respond(turn)) as events:
                    begun = False
                    async for event in events:
                        batch = [] if begun else writer.begin()
                        begun = True
                        batch += writer.write(event)
                        if isinstance(event, PartDone | TurnDone):
                            answering.note_calls()
                        if isinstance(event, TurnDone):
                            answering.added = list(event.messages)
                            answering.states = tool_states(tools)
                            await self._keep_last(answering, batch)
                        yield batch
            finally:
                await self._toolbox.close(tools)

    async def keep(self, answering: Answering, *, events: list[Json]) -> None:
        """Write a response into the store, if the client wants it kept."""
        if self._store is None or not answering.response["store"]:
            return
        messages = [*answering.prepared.conversation, *answering.added]
        record = Record(
            response=answering.response,
            input_items=answering.prepared.input_items,
            messages=[message.to_dict() for message in messages],
            calls=answering.prepared.calls,
            tool_states=answering.states,
            events=events,
        )
        await self._store.put(record)

    async def _keep_last(self, answering: Answering, batch: list[Json]) -> None:
        if answering.response["background"]:
            events = [*answering.events, *batch]
            await self.keep(answering, events=events if answering.prepared.request.stream else [])
        else:
            await self.keep(answering, events=[])

    async def _previous(self, response_id: str) -> Record:
        record = await self._record(response_id, param="previous_response_id")
        if record.response["status"] in ("queued", "in_progress"):
            raise InvalidRequest(
                f"the response {response_id} is not finished; wait for it",
                param="previous_response_id",
            )
        return record

    async def _record(self, response_id: str, *, param: str | None = None) -> Record:
        record = None if self._store is None else await self._store.get(response_id)
        if record is None:
            raise _missing(response_id, param=param)
        return record


class Answering:
    """One response being made.

    Attributes:
        prepared: what was asked.
        response: the object so far.
        writer: writes its events.
        added: messages that the turn added.
        states: of our tools.
        events: all so far, of a background response.
    """

    def __init__(self, service: ResponseService, prepared: Prepared, response: Json) -> None:
        self.prepared = prepared
        self.response = response
        self.added: list[Message] = []
        self.states: dict[str, Any] = {}
        self.events: list[Json] = []
        request, settings = prepared.request, service._settings
        reasoning = request.reasoning
        asked = reasoning.summary or reasoning.generate_summary if reasoning else None
        style = ItemStyle(
            encoding=service._session.encoding,
            reasoning=settings.reasoning,
            summary=asked not in (None, "none"),
            include=request.include or (),
            container_id=f"cntr_{response['id'].removeprefix('resp_')}",
        )
        self.writer = ResponseWriter(response, prepared.plan, style)
        self._service = service

    async def batches(self) -> AsyncGenerator[list[Json], None]:
        """Events in batches. A failure before the first is raised, a later one is an event."""
        begun = self.response["background"]
        async with aclosing(self._service.run(self)) as batches:
            try:
                async for batch in batches:
                    begun = True
                    self._remember(batch)
                    yield batch
            except asyncio.CancelledError:
                batch = await asyncio.shield(self._stopped(self.writer.cancel()))
                if self.response["background"]:
                    yield batch  # its followers want to hear of it
                raise
            except Exception as error:
                failure = as_serve_error(error)
                if failure.status >= 500:
                    _log.warning("response %s failed", self.response["id"], exc_info=error)
                if not begun:
                    raise failure from error
                yield await self._stopped(self.writer.fail(failure))

    async def finished(self) -> Json:
        """The final object, for clients that do not stream."""
        async with aclosing(self.batches()) as batches:
            async for _ in batches:
                pass
        return self.response

    def note_calls(self) -> None:
        """Remember whom the calls of the response were for."""
        for item in self.response["output"]:
            if "call_id" in item:
                functions = self.prepared.plan.functions
                found = functions.find(item["name"], namespace=item.get("namespace"))
                if found is not None:
                    self.prepared.calls[item["call_id"]] = f"functions.{found.callable_name}"

    def _remember(self, batch: list[Json]) -> None:
        if self.response["background"]:
            self.events += batch

    async def _stopped(self, batch: list[Json]) -> list[Json]:
        self._remember(batch)
        if self.response["background"]:
            await self._service.keep(self, events=self.events)
        return batch


def _missing(response_id: str, *, param: str | None = None) -> NotFound:
    code = "previous_response_not_found" if param else "response_not_found"
    return NotFound(f"there is no response {response_id!r}", param=param, code=code)


async def _once(events: list[Json]) -> AsyncGenerator[list[Json], None]:
    yield events
