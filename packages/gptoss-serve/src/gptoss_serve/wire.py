"""Bodies in, server-sent events out, and noticing that the client has gone.

```
return EventStream(batches, keep_alive=15.0)     # an ASGI response
```

Nothing is sent before the first batch is there, so that a request that fails at once gets a plain
error with its status. A client that disconnects ends the generator; one that reads slowly slows it
down, and one that stops reading is taken for gone by `Guard`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gptoss_serve.errors import InvalidRequest, ServeError, TooLarge, TooLate, as_serve_error
from gptoss_serve.settings import ServerSettings

Result = TypeVar("Result")

_LONG = 64 * 1024  # bytes; reading more would hold up everybody's streams


class ClientGone(Exception):
    """Nobody listens any more: the rest of a request's work is in vain."""


async def read_json(request: Request, settings: ServerSettings) -> Any:
    """Read a JSON body.

    Raises:
        TooLarge: more bytes than allowed.
        TooLate: it did not arrive in time.
        InvalidRequest: it is not JSON in UTF-8, or nested too deeply.
        ClientGone: the client left.
    """
    try:
        async with asyncio.timeout(settings.client_seconds):
            body = await _read(request, settings.max_body_bytes)
    except TimeoutError as error:
        raise TooLate(
            f"the body did not arrive within {settings.client_seconds:g} seconds"
        ) from error
    except ClientDisconnect as error:
        raise ClientGone from error
    if len(body) > _LONG:
        return await asyncio.to_thread(parse_json, body, settings.max_depth)
    return parse_json(body, settings.max_depth)


async def _read(request: Request, most_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise TooLarge(f"the body is larger than {most_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


def parse_json(body: bytes, max_depth: int) -> Any:
    """Parse JSON as RFC 8259 has it: no NaN, no number that a double cannot hold.

    Halves of surrogate pairs, which JSON can spell and UTF-8 cannot, become U+FFFD.

    Raises:
        InvalidRequest: it is not JSON in UTF-8, or nested too deeply.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as error:
        raise _too_deep(max_depth) from error
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON in UTF-8: {error}", code="invalid_json") from (
            error
        )
    if text.count("[") + text.count("{") > max_depth and _is_deeper(value, max_depth):
        raise _too_deep(max_depth)
    return _without_surrogates(value) if "\\ud" in text.lower() else value


def _too_deep(max_depth: int) -> InvalidRequest:
    return InvalidRequest(f"the JSON is nested deeper than {max_depth}", code="invalid_json")


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested deeper; goes level by level, without recursion."""
    level = [value]
    while level and depth > 0:
        below: list[Any] = []
        for entry in level:
            if isinstance(entry, dict):
                below.extend(v for v in entry.values() if isinstance(v, dict | list))
            elif isinstance(entry, list):
                below.extend(v for v in entry if isinstance(v, dict | list))
        level = below
        depth -= 1
    return bool(level)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(entry) for entry in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def error_response(error: ServeError) -> JSONResponse:
    """An error as OpenAI writes it."""
    headers = {"retry-after": "1"} if error.status in (429, 503) else None
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


def named_event(event: Mapping[str, Any]) -> bytes:
    """An event of the Responses API; its name is its type."""
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), packed(event))


def data_event(payload: Mapping[str, Any]) -> bytes:
    """A chunk of Chat Completions."""
    return b"data: %b\n\n" % packed(payload)


def packed(value: Any) -> bytes:
    """Compact JSON; lone surrogates, which have no UTF-8, become U+FFFD."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


async def until_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`, cancelling it when the client goes away.

    Raises:
        ClientGone: before the work was done.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return await task
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A stream of server-sent events.

    Args:
        batches: bytes to send; closed at the end or when the client goes away.
        keep_alive: seconds of silence after which a comment is sent.
        headers: more headers.
    """

    def __init__(
        self,
        batches: AsyncGenerator[bytes, None],
        *,
        keep_alive: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(media_type="text/event-stream", headers=dict(headers or {}))
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"
        self._batches = batches
        self._keep_alive = keep_alive
        self._begun = asyncio.Event()
        self._last = 0.0  # when something was sent, on the loop's clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end or until nobody listens."""
        sending = asyncio.ensure_future(self._send_all(scope, receive, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        alive = asyncio.ensure_future(self._send_comments(send))
        tasks = (sending, gone, alive)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # the first one was raised; what followed from it is known
            await self._batches.aclose()

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            first = await anext(self._batches, b"")
        except Exception as error:  # any failure before the first byte has a status of its own
            await error_response(as_serve_error(error))(scope, receive, send)
            return
        clock = asyncio.get_running_loop().time
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await _send_body(send, first)
        self._last = clock()
        self._begun.set()
        async for batch in self._batches:
            await _send_body(send, batch)
            self._last = clock()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_comments(self, send: Send) -> None:
        """Keep the connection alive through silence."""
        clock = asyncio.get_running_loop().time
        await self._begun.wait()
        while True:
            silence_ends = self._last + self._keep_alive
            if clock() < silence_ends:
                await asyncio.sleep(silence_ends - clock())
                continue
            await _send_body(send, b": keep-alive\n\n")
            self._last = clock()


async def _send_body(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
