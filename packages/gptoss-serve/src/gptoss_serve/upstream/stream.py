"""One request to the upstream, its answer as JSON events.

Busy and missing servers are asked again, with growing waits, as long as nothing has come: what has
been streamed is never asked for twice. Leaving the iteration closes the connection, which is how an
upstream learns that nobody listens any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx

from gptoss_serve.errors import ServeError, UpstreamError
from gptoss_serve.sse import MOST_BYTES, EventTooLong, event_data
from gptoss_serve.upstream.endpoint import Endpoint
from gptoss_serve.upstream.refusals import RETRIED, refusal, unreachable

Json = dict[str, Any]

_log = logging.getLogger("gptoss_serve")
_LONGEST_WAIT = 30.0


class _Busy(Exception):
    """An attempt failed before anything came, and another may not."""

    def __init__(self, error: ServeError, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


async def ask(
    http: httpx.AsyncClient, endpoint: Endpoint, body: Json
) -> AsyncGenerator[Json, None]:
    """Post a request and give the events of its answer.

    Raises:
        ServeError: the upstream refused, failed, or cannot be reached.
    """
    for attempt in range(endpoint.retries + 1):
        try:
            async with aclosing(_attempt(http, endpoint, body)) as events:
                async for event in events:
                    yield event
            return
        except _Busy as busy:
            if attempt == endpoint.retries:
                raise busy.error from busy.__cause__
            wait = _wait(endpoint, attempt, busy.wait)
            _log.warning("the upstream %s is busy; again in %.1f s", endpoint.shown, wait)
        await asyncio.sleep(wait)


async def _attempt(
    http: httpx.AsyncClient, endpoint: Endpoint, body: Json
) -> AsyncGenerator[Json, None]:
    begun = False
    try:
        async with http.stream("POST", endpoint.post_url, json=body) as answer:
            if answer.status_code != 200:
                raise await _refused(endpoint, answer)
            if "text/event-stream" not in answer.headers.get("content-type", ""):
                yield _whole(endpoint, await _body(answer))
                return
            async for data in event_data(answer.aiter_bytes()):
                begun = True
                yield _event(endpoint, data)
    except EventTooLong as error:
        raise unreachable(endpoint, f"sent more than {MOST_BYTES} bytes at once") from error
    except httpx.TransportError as error:
        failure = _failure(endpoint, error)
        # One that is only slow is left to finish: asking again would double its work.
        if begun or isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
            raise failure from error
        raise _Busy(failure) from error


async def _body(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            raise EventTooLong
    return bytes(body)


async def _refused(endpoint: Endpoint, answer: httpx.Response) -> Exception:
    text = (await _body(answer)).decode("utf-8", "replace")
    error = refusal(endpoint, answer.status_code, text)
    if answer.status_code not in RETRIED or error.code == "insufficient_quota":
        return error
    return _Busy(error, _seconds(answer.headers.get("retry-after")))


def _failure(endpoint: Endpoint, error: httpx.TransportError) -> UpstreamError:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return unreachable(endpoint, "cannot be reached; is it running, and --upstream right?")
    if isinstance(error, httpx.TimeoutException):
        seconds = f"{endpoint.silence_seconds:g}"
        return unreachable(endpoint, f"sent nothing for {seconds} s (--upstream-timeout)")
    return unreachable(endpoint, f"broke off ({type(error).__name__}); its log may say why")


def _wait(endpoint: Endpoint, attempt: int, asked: float | None) -> float:
    if asked is not None:
        return min(asked, _LONGEST_WAIT)
    longest: float = endpoint.backoff_seconds * 2**attempt
    return min(longest, _LONGEST_WAIT) * random.uniform(0.5, 1.0)


def _seconds(retry_after: str | None) -> float | None:
    """The header as seconds; a date is as good as none."""
    try:
        return max(0.0, float(retry_after or ""))
    except ValueError:
        return None


def _event(endpoint: Endpoint, data: str) -> Json:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise unreachable(endpoint, "sent an event that is not JSON") from error
    if not isinstance(event, dict):
        raise unreachable(endpoint, "sent an event that is not an object")
    return event


def _whole(endpoint: Endpoint, data: bytes) -> Json:
    """The body of a server that does not stream; readers know what to make of it."""
    return _event(endpoint, data.decode("utf-8", "replace"))
