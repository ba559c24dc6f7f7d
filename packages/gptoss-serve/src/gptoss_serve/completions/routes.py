"""The HTTP face of Chat Completions and of plain completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from gptoss_serve.completions.schema import ChatRequest, TextRequest
from gptoss_serve.completions.service import ChatService
from gptoss_serve.completions.text import TextService
from gptoss_serve.errors import as_serve_error
from gptoss_serve.guard import client_of
from gptoss_serve.responses.schema import checked
from gptoss_serve.settings import ServerSettings
from gptoss_serve.wire import EventStream, data_event, read_json, until_disconnect

Json = dict[str, Any]


def completions_router(chat: ChatService, text: TextService, settings: ServerSettings) -> APIRouter:
    """`/v1/chat/completions` and `/v1/completions`."""
    router = APIRouter(prefix="/v1", tags=["completions"])

    async def chat_completions(request: Request) -> Response:
        """Answer a chat."""
        body = await read_json(request, settings)
        asked = checked(ChatRequest, body)
        # Long conversations take a while, and others stream meanwhile.
        ask = await asyncio.to_thread(chat.prepare, asked, client=client_of(request))
        if asked.stream:
            return _stream(chat.stream(ask), settings, ask.plan.headers)
        completion = await until_disconnect(request, chat.complete(ask))
        return JSONResponse(completion, headers=ask.plan.headers)

    async def completions(request: Request) -> Response:
        """Continue a text."""
        body = await read_json(request, settings)
        asked = checked(TextRequest, body)
        prompts = await asyncio.to_thread(text.prompts, asked)
        client = client_of(request)
        if asked.stream:
            chunks = text.stream(asked, prompts, with_usage=asked.wants_usage, client=client)
            return _stream(chunks, settings)
        return JSONResponse(
            await until_disconnect(request, text.complete(asked, prompts, client=client))
        )

    add = router.add_api_route
    add("/chat/completions", chat_completions, methods=["POST"], openapi_extra=_body(ChatRequest))
    add("/completions", completions, methods=["POST"], openapi_extra=_body(TextRequest))
    return router


def _stream(
    batches: AsyncGenerator[list[Json], None],
    settings: ServerSettings,
    headers: dict[str, str] | None = None,
) -> EventStream:
    return EventStream(_encoded(batches), keep_alive=settings.keep_alive_seconds, headers=headers)


async def _encoded(batches: AsyncGenerator[list[Json], None]) -> AsyncGenerator[bytes, None]:
    """Chunks as bytes; a failure after the first becomes an error chunk."""
    begun = False
    async with aclosing(batches):
        try:
            async for batch in batches:
                begun = True
                yield b"".join(map(data_event, batch))
        except Exception as error:
            if not begun:
                raise
            yield data_event(as_serve_error(error).body())
    yield b"data: [DONE]\n\n"


def _body(model: type[BaseModel]) -> Json:
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
