"""The HTTP face of the Responses API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from gptoss_serve.errors import InvalidRequest
from gptoss_serve.guard import client_of, owner_of
from gptoss_serve.responses.answering import Answering
from gptoss_serve.responses.padding import padded
from gptoss_serve.responses.parts import Json
from gptoss_serve.responses.query import flag, number
from gptoss_serve.responses.query import include as query_include
from gptoss_serve.responses.schema import (
    CompactRequest,
    CountRequest,
    ResponsesRequest,
    checked,
)
from gptoss_serve.responses.service import ResponseService
from gptoss_serve.settings import ServerSettings
from gptoss_serve.wire import EventStream, named_event, read_json, until_disconnect


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """What `/openapi.json` says of a body."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def responses_router(service: ResponseService, settings: ServerSettings) -> APIRouter:
    """Routes below `/v1/responses`."""
    routes = _Routes(service, settings)
    router = APIRouter(prefix="/v1/responses", tags=["responses"])
    posts = (
        ("", routes.create, ResponsesRequest),
        ("/input_tokens", routes.count, CountRequest),
        ("/compact", routes.compact, CompactRequest),
    )
    for path, route, model in posts:
        router.add_api_route(path, route, methods=["POST"], openapi_extra=_body(model))
    kept = (
        ("GET", "/{response_id}", routes.get),
        ("DELETE", "/{response_id}", routes.delete),
        ("POST", "/{response_id}/cancel", routes.cancel),
        ("GET", "/{response_id}/input_items", routes.input_items),
    )
    owned = [Depends(routes.check_owner)]
    for method, path, answer in kept:
        router.add_api_route(path, answer, methods=[method], dependencies=owned)
    return router


class _Routes:
    """What answers each path."""

    def __init__(self, service: ResponseService, settings: ServerSettings) -> None:
        self._service = service
        self._settings = settings

    async def check_owner(self, request: Request, response_id: str) -> None:
        """Let nobody near a kept response of another key."""
        await self._service.check_owner(response_id, owner=owner_of(request))

    async def create(self, request: Request) -> Response:
        """Create a response."""
        body = await read_json(request, self._settings)
        asked = checked(ResponsesRequest, body)
        client, owner = client_of(request), owner_of(request)
        answering = await self._service.create(asked, client=client, owner=owner)
        headers = answering.prepared.plan.headers
        if asked.background:
            return await self._background(answering, headers)
        if asked.stream:
            return self._stream(answering.batches(), headers, obfuscate=_wants_padding(asked))
        response = await until_disconnect(request, answering.finished())
        return JSONResponse(response, headers=headers)

    async def count(self, request: Request) -> Response:
        """Count the tokens of a prompt."""
        body = await read_json(request, self._settings)
        asked = checked(CountRequest, body)
        return JSONResponse(await self._service.count(asked, owner=owner_of(request)))

    async def compact(self, request: Request) -> Response:
        """Make a conversation shorter."""
        body = await read_json(request, self._settings)
        asked = checked(CompactRequest, body)
        client, owner = client_of(request), owner_of(request)
        work = self._service.compact(asked, client=client, owner=owner)
        return JSONResponse(await until_disconnect(request, work))

    async def get(self, request: Request, response_id: str) -> Response:
        """Get a response, or its events again from `starting_after` on."""
        query = request.query_params
        include = query_include(query)
        if flag(query, "stream"):
            after = number(query, "starting_after", default=-1)
            events = await self._service.follow(response_id, after)
            return self._stream(events, obfuscate=flag(query, "include_obfuscation"))
        for name in ("starting_after", "include_obfuscation"):
            if name in query:
                raise InvalidRequest(f"{name} goes with stream=true", param=name)
        return JSONResponse(await self._service.get(response_id, include=include))

    async def delete(self, response_id: str) -> Response:
        """Forget a response."""
        return JSONResponse(await self._service.delete(response_id))

    async def cancel(self, response_id: str) -> Response:
        """Stop a background response."""
        return JSONResponse(await self._service.cancel(response_id))

    async def input_items(self, request: Request, response_id: str) -> Response:
        """List what the request brought."""
        query = request.query_params
        page = await self._service.input_items(
            response_id,
            order=query.get("order", "desc"),
            after=query.get("after"),
            limit=number(query, "limit", default=20),
            include=query_include(query),
        )
        return JSONResponse(page)

    async def _background(self, answering: Answering, headers: dict[str, str]) -> Response:
        running = await self._service.start(answering)
        asked = answering.prepared.request
        if asked.stream:
            return self._stream(running.follow(), headers, obfuscate=_wants_padding(asked))
        return JSONResponse(answering.response, headers=headers)

    def _stream(
        self,
        batches: AsyncGenerator[list[Json], None],
        headers: dict[str, str] | None = None,
        *,
        obfuscate: bool = False,
    ) -> Response:
        keep_alive = self._settings.keep_alive_seconds
        encoded = _encoded(batches, obfuscate=obfuscate)
        return EventStream(encoded, keep_alive=keep_alive, headers=headers)


async def _encoded(
    batches: AsyncGenerator[list[Json], None], *, obfuscate: bool
) -> AsyncGenerator[bytes, None]:
    """Events as bytes. Those of a background response go on without this reader."""
    async with aclosing(batches):
        async for batch in batches:
            yield b"".join(named_event(padded(e) if obfuscate else e) for e in batch)
    yield b"data: [DONE]\n\n"


def _wants_padding(request: ResponsesRequest) -> bool:
    return request.stream_options is not None and bool(request.stream_options.include_obfuscation)
