"""The HTTP face of the Responses API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from gptoss_serve.errors import InvalidRequest
from gptoss_serve.responses.parts import Json
from gptoss_serve.responses.schema import ResponsesRequest, checked
from gptoss_serve.responses.service import Answering, ResponseService
from gptoss_serve.settings import ServerSettings
from gptoss_serve.wire import EventStream, named_event, read_json, until_disconnect

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ResponsesRequest.model_json_schema()}},
    }
}


def responses_router(service: ResponseService, settings: ServerSettings) -> APIRouter:
    """Routes below `/v1/responses`."""
    routes = _Routes(service, settings)
    router = APIRouter(prefix="/v1/responses", tags=["responses"])
    router.add_api_route("", routes.create, methods=["POST"], openapi_extra=_BODY)
    router.add_api_route("/{response_id}", routes.get, methods=["GET"])
    router.add_api_route("/{response_id}", routes.delete, methods=["DELETE"])
    router.add_api_route("/{response_id}/cancel", routes.cancel, methods=["POST"])
    router.add_api_route("/{response_id}/input_items", routes.input_items, methods=["GET"])
    return router


class _Routes:
    """What answers each path."""

    def __init__(self, service: ResponseService, settings: ServerSettings) -> None:
        self._service = service
        self._settings = settings

    async def create(self, request: Request) -> Response:
        """Create a response."""
        body = await read_json(request, self._settings.max_body_bytes)
        asked = checked(ResponsesRequest, body)
        answering = await self._service.create(asked)
        headers = _headers(answering)
        if asked.background:
            return await self._background(answering)
        if asked.stream:
            return self._stream(answering.batches(), headers)
        response = await until_disconnect(request, answering.finished())
        return JSONResponse(response, headers=headers)

    async def get(self, request: Request, response_id: str) -> Response:
        """Get a response, or its events again from `starting_after` on."""
        query = request.query_params
        if query.get("stream", "").lower() not in ("true", "1"):
            return JSONResponse(await self._service.get(response_id))
        starting_after = _integer(query.get("starting_after", "-1"), "starting_after")
        return self._stream(await self._service.follow(response_id, max(-1, starting_after)))

    async def delete(self, response_id: str) -> Response:
        """Forget a response."""
        return JSONResponse(await self._service.delete(response_id))

    async def cancel(self, response_id: str) -> Response:
        """Stop a background response."""
        return JSONResponse(await self._service.cancel(response_id))

    async def input_items(self, request: Request, response_id: str) -> Response:
        """List what the request brought."""
        items = await self._service.input_items(response_id)
        return JSONResponse(_page(items, request.query_params))

    async def _background(self, answering: Answering) -> Response:
        answering.response["status"] = "queued"
        running = await self._service.start(answering)
        if answering.prepared.request.stream:
            return self._stream(running.follow())
        return JSONResponse(answering.response)

    def _stream(
        self, batches: AsyncGenerator[list[Json], None], headers: dict[str, str] | None = None
    ) -> Response:
        keep_alive = self._settings.keep_alive_seconds
        return EventStream(_encoded(batches), keep_alive=keep_alive, headers=headers)


async def _encoded(batches: AsyncGenerator[list[Json], None]) -> AsyncGenerator[bytes, None]:
    """Events as bytes. Those of a background response go on without this reader."""
    async with aclosing(batches):
        async for batch in batches:
            yield b"".join(map(named_event, batch))
    yield b"data: [DONE]\n\n"


def _headers(answering: Answering) -> dict[str, str]:
    ignored = answering.prepared.plan.ignored
    printable = [kind for kind in ignored if kind.isascii() and kind.isprintable()]
    return {"gptoss-ignored-tools": ", ".join(printable)} if printable else {}


def _integer(text: str, param: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidRequest(f"{param} must be an integer", param=param) from error


def _page(items: list[Json], query: Any) -> Json:
    """A page of a list: `order`, `after`, `limit`."""
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest("order is asc or desc", param="order")
    limit = _integer(query.get("limit", "20"), "limit")
    if not 1 <= limit <= 100:
        raise InvalidRequest("limit is 1 to 100", param="limit")
    ordered = items if order == "asc" else items[::-1]
    after = query.get("after")
    if after is not None:
        places = [i for i, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise InvalidRequest(f"there is no item {after!r} here", param="after")
        ordered = ordered[places[0] + 1 :]
    page = ordered[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(ordered) > limit,
    }
