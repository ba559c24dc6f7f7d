"""The Responses API without HTTP: create, get, cancel, delete, count, compact.

A foreground response lives as long as somebody reads its events; a background one has a task of
its own and keeps its events, so that a stream can be resumed after any of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from gptoss_harmony import Tool
from gptoss_serve.errors import InvalidRequest, NotFound
from gptoss_serve.events import Event
from gptoss_serve.limits import Admission
from gptoss_serve.models import ModelNames
from gptoss_serve.responses.answering import Answering
from gptoss_serve.responses.compact import asked_for_summary, compacted
from gptoss_serve.responses.counting import prompt_tokens
from gptoss_serve.responses.included import items_with_included, with_included
from gptoss_serve.responses.listing import page_of
from gptoss_serve.responses.parts import Json, new_id
from gptoss_serve.responses.prepare import Prepared, prepare
from gptoss_serve.responses.references import without_references
from gptoss_serve.responses.remote_tools import RemoteTools
from gptoss_serve.responses.response import new_response
from gptoss_serve.responses.running import Background, Running
from gptoss_serve.responses.schema import CompactRequest, CountRequest, ResponsesRequest
from gptoss_serve.responses.store import Record, ResponseStore
from gptoss_serve.responses.tools import ToolPlan, plan_tools
from gptoss_serve.session import Session
from gptoss_serve.settings import ServerSettings
from gptoss_serve.toolbox import Toolbox, tool_states

_log = logging.getLogger("gptoss_serve")
_UNFINISHED = ("queued", "in_progress")
_LOST = "the server that made this response stopped before it was finished; ask again"
_SWEEP_SECONDS = 60.0
_STOP_SECONDS = 20.0  # how long another server may take to stop a response
States = Callable[[], dict[str, Any]]


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
        self.session = session
        self.settings = settings
        self.store = store
        self._toolbox = toolbox
        self._models = models
        self._admission = admission
        self._background = Background(store)
        self._sweep: asyncio.Task[None] | None = None

    async def create(
        self, request: ResponsesRequest, *, client: str = "", owner: str = ""
    ) -> Answering:
        """Check a request and get ready to answer it.

        Args:
            request: what is asked.
            client: who asks, for a fair turn.
            owner: whose the response will be; "" is everybody's.

        Raises:
            ServeError: it cannot be served.
        """
        model = self._models.resolve(request.model)
        if request.background and self.store is None:
            raise InvalidRequest(
                "background needs a store; this server has none", param="background"
            )
        prepared = await self._prepared(request, owner=owner)
        store = self.store is not None and request.store is not False
        response = new_response(
            request, prepared.plan, response_id=new_id("resp"), model=model, store=store
        )
        return Answering(self, prepared, response, client=client)

    async def start(self, answering: Answering) -> Running:
        """Answer in the background."""
        answering.response["status"] = "queued"
        await answering.keep()
        return self._background.start(answering.response, answering.batches())

    async def count(self, request: CountRequest, *, owner: str = "") -> Json:
        """How many tokens the prompt of a request has.

        Args:
            request: whose prompt.
            owner: who asks.

        Raises:
            ServeError: it could not be answered.
        """
        self._models.resolve(request.model)
        prepared = await self._prepared(request.as_response(), owner=owner)
        async with self._tools(prepared) as (tools, remote):
            async with aclosing(remote.list()) as asking:
                async for _ in asking:
                    pass
            turn = prepared.turn(self.session.engine, [*tools, *remote.tools], self.settings)
        tokens = await prompt_tokens(self.session, turn)
        return {"object": "response.input_tokens", "input_tokens": tokens}

    async def compact(self, request: CompactRequest, *, client: str = "", owner: str = "") -> Json:
        """A conversation in fewer tokens, as one item: the user's messages and a summary.

        Args:
            request: the conversation.
            client: who asks, for a fair turn.
            owner: who asks, and may continue only what is theirs.

        Raises:
            ServeError: it cannot be served, or the model wrote no summary.
        """
        self._models.resolve(request.model)
        prepared = await self._prepared(request.as_response(), owner=owner)
        asked = asked_for_summary(prepared)
        async with self.turn(asked, client=client) as (events, _):
            return await compacted(prepared, events)

    async def check_owner(self, response_id: str, *, owner: str, param: str | None = None) -> None:
        """Let nobody near a response of somebody else.

        Raises:
            NotFound: there is none, or none that this owner may see.
        """
        if self.store is None or not await self.store.shows(response_id, owner=owner):
            raise missing(response_id, param=param)

    async def get(self, response_id: str, *, include: Sequence[str] = ()) -> Json:
        """The response as it stands.

        Args:
            response_id: of the response.
            include: what else it shall hold.

        Raises:
            NotFound: there is none.
            InvalidRequest: something to include that was not kept.
        """
        running = self._background.find(response_id)
        if running is not None:
            if running.response["status"] in _UNFINISHED and not include:
                return running.response
            await asyncio.wait([running.task])  # its last words are being written
        record = await self.record(response_id)
        return with_included(record, include)

    async def input_items(
        self,
        response_id: str,
        *,
        order: str = "desc",
        after: str | None = None,
        limit: int = 20,
        include: Sequence[str] = (),
    ) -> Json:
        """A page of what the request brought; `include` can add sealed thoughts.

        Raises:
            NotFound: there is no such response.
            InvalidRequest: a page that makes no sense.
        """
        record = await self.record(response_id)
        items = items_with_included(record.input_items, include)
        return page_of(items, order=order, after=after, limit=limit)

    async def follow(
        self, response_id: str, starting_after: int
    ) -> AsyncGenerator[list[Json], None]:
        """The events of a background response after a sequence number, to its end.

        Raises:
            NotFound: there is no such response.
            InvalidRequest: it was not made with `background` and `stream`.
        """
        running = self._background.find(response_id)
        record = await self.record(response_id)
        if not record.is_stream:
            raise InvalidRequest(
                "only a response that was made with background and stream can be streamed again",
                param="stream",
            )
        if running is not None:
            return running.follow(starting_after)
        if record.response["status"] in _UNFINISHED:
            raise InvalidRequest(
                "another server of this store makes the response; ask that one, or poll",
                param="stream",
            )
        return _once([e for e in record.events if e["sequence_number"] > starting_after])

    async def cancel(self, response_id: str) -> Json:
        """Stop a background response and return it.

        Raises:
            NotFound: there is none.
            InvalidRequest: it is not a background response.
        """
        if not await self._background.cancel(response_id):
            await self._stop_elsewhere(response_id)
        response = await self.get(response_id)
        if not response["background"]:
            raise InvalidRequest("only background responses can be cancelled", param="response_id")
        return response

    async def delete(self, response_id: str) -> Json:
        """Forget a response, stopping it if it runs.

        Raises:
            NotFound: there is none.
        """
        await self._background.cancel(response_id)  # another server stops by itself
        if self.store is None or not await self.store.delete(response_id):
            raise missing(response_id)
        await asyncio.to_thread(self._toolbox.release, response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    def hold(self, response_id: str, states: Mapping[str, Any]) -> None:
        """Note that a kept response refers to what its tools hold."""
        self._toolbox.hold(response_id, states)

    async def open(self) -> None:
        """Forget what is over its time, now and as long as the server runs."""
        if self.store is not None:
            await self.store.expire()
            self._sweep = asyncio.create_task(self._sweep_often(self.store))

    async def close(self) -> None:
        """Stop what runs in the background."""
        if self._sweep is not None:
            self._sweep.cancel()
            await asyncio.wait([self._sweep])
        await self._background.close()

    async def _sweep_often(self, store: ResponseStore) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await store.expire()
            except Exception as error:  # such as a file that is locked; the next time will do
                _log.warning("cannot sweep the store of responses", exc_info=error)

    @asynccontextmanager
    async def turn(
        self, prepared: Prepared, *, client: str = ""
    ) -> AsyncIterator[tuple[AsyncGenerator[Event, None], States]]:
        """The events of a turn, within a slot; and what its tools must remember."""
        before = prepared.tool_states
        async with (
            self._admission.slot(client),
            self._tools(prepared) as (tools, remote),
            aclosing(self._events(prepared, tools, remote)) as events,
        ):
            yield events, lambda: {**before, **tool_states(tools), "mcp": remote.state}

    @asynccontextmanager
    async def _tools(self, prepared: Prepared) -> AsyncIterator[tuple[list[Tool], RemoteTools]]:
        """The tools of a turn that run here, and those of remote servers."""
        plan, states = prepared.plan, prepared.tool_states
        remote = RemoteTools(
            plan,
            self.settings.mcp,
            seconds=self.settings.mcp_seconds,
            known=prepared.listings,
            kept=states.get("mcp", {}),
        )
        tools = await self._toolbox.open(plan.builtin, states=states, options=plan.options)
        try:
            yield tools, remote
        finally:
            await remote.close()
            await self._toolbox.close(tools)

    async def _events(
        self, prepared: Prepared, tools: Sequence[Tool], remote: RemoteTools
    ) -> AsyncGenerator[Event, None]:
        """What remote servers have, then what the model does."""
        async with aclosing(remote.list()) as asking:
            async for asked in asking:
                yield asked
        turn = prepared.turn(self.session.engine, [*tools, *remote.tools], self.settings)
        async with aclosing(self.session.respond(turn)) as events:
            async for event in events:
                yield event

    async def record(self, response_id: str, *, param: str | None = None) -> Record:
        """The record of a response; one whose maker is gone has failed.

        Raises:
            NotFound: there is none; `param` says which field names it.
        """
        record = None if self.store is None else await self.store.get(response_id)
        if record is None or self.store is None:
            raise missing(response_id, param=param)
        if record.response["status"] not in _UNFINISHED or self._background.find(response_id):
            return record
        if await self.store.is_being_made(response_id):
            return record
        again = await self.store.get(response_id)  # it may have ended between the two looks
        if again is not None and again.response["status"] in _UNFINISHED:
            lost = {"code": "server_error", "message": _LOST}
            again.response.update(status="failed", error=lost)
            await self.store.replace(again, last=True)
        if again is None:
            raise missing(response_id, param=param)
        return again

    async def _prepared(self, request: ResponsesRequest, *, owner: str) -> Prepared:
        plan: ToolPlan = plan_tools(
            request.tools or [], request.tool_choice, self._toolbox, access=self.settings.mcp
        )
        previous = None
        if request.previous_response_id is not None:
            previous = await self._previous(request.previous_response_id, owner=owner)
        if isinstance(request.input, list):
            items = await without_references(request.input, self.store, owner=owner)
            request = request.model_copy(update={"input": items})
        # Long conversations take a while, and others stream meanwhile.
        return await asyncio.to_thread(
            prepare,
            request,
            plan,
            self.session.engine,
            previous,
            toolbox=self._toolbox,
            owner=owner,
        )

    async def _previous(self, response_id: str, *, owner: str) -> Record:
        await self.check_owner(response_id, owner=owner, param="previous_response_id")
        record = await self.record(response_id, param="previous_response_id")
        if record.response["status"] in _UNFINISHED:
            raise InvalidRequest(
                f"the response {response_id} is not finished; wait for it",
                param="previous_response_id",
            )
        return record

    async def _stop_elsewhere(self, response_id: str) -> None:
        """Have another server stop a response, and wait until it did."""
        if self.store is None or (await self.get(response_id))["status"] not in _UNFINISHED:
            return
        await self.store.ask_to_stop(response_id)
        end = asyncio.get_running_loop().time() + _STOP_SECONDS
        while (await self.get(response_id))["status"] in _UNFINISHED:
            if asyncio.get_running_loop().time() > end:
                return
            await asyncio.sleep(0.1)


def missing(response_id: str, *, param: str | None = None) -> NotFound:
    """There is no such response."""
    code = "previous_response_not_found" if param else "response_not_found"
    return NotFound(f"there is no response {response_id!r}", param=param, code=code)


async def _once(events: list[Json]) -> AsyncGenerator[list[Json], None]:
    yield events
