"""What every request passes through: its id, the key, the time limits, the log and the counters.

A plain ASGI layer, so that streams pass through untouched.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import uuid
from collections.abc import MutableMapping
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_serve.access_log import Exchange
from gptoss_serve.errors import ServeError, TooLarge, Unauthorized
from gptoss_serve.metrics import Metrics
from gptoss_serve.settings import ServerSettings
from gptoss_serve.watch import Watch
from gptoss_serve.wire import ClientGone, error_response

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,128}")
_OPEN_PATHS = ("/health", "/")
_CLIENT = "gptoss.client"
_OWNER = "gptoss.owner"


class Guard:
    """Wraps the application.

    Args:
        app: what answers.
        settings: keys and limits.
        metrics: counts.
        watch: hears of every request.
    """

    def __init__(
        self, app: ASGIApp, *, settings: ServerSettings, metrics: Metrics, watch: Watch
    ) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        key = self._key(headers)
        scope[_CLIENT] = _client(scope, key)
        scope[_OWNER] = "" if key is None else _digest(self._settings.keys[key])
        request_id = _request_id(headers)
        exchange = Exchange(scope, request_id, scope[_CLIENT], keep_body=self._settings.log_prompts)
        refused = self._refusal(scope, headers, key)
        app = self._app if refused is None else error_response(refused)
        try:
            with self._watch.request(exchange, headers):
                await app(scope, _noting(receive, exchange), self._sending(send, exchange))
        except (ClientGone, asyncio.CancelledError):
            await _hang_up(scope)  # nobody listens, or the server must stop now
        except Exception:
            if not exchange.started:
                raise
            await _hang_up(scope)  # it is in the log already
        finally:
            self._metrics.count(exchange.route, exchange.status, exchange.seconds)
            exchange.write()

    def _sending(self, send: Send, exchange: Exchange) -> Send:
        """Add the request id; give up on a client that takes nothing."""
        seconds = self._settings.client_seconds
        request_id = (b"x-request-id", exchange.request_id.encode())

        async def send_in_time(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), request_id]}
            exchange.sent(message)
            try:
                async with asyncio.timeout(seconds):
                    await send(message)
            except TimeoutError as error:
                raise ClientGone from error

        return send_in_time

    def _key(self, headers: dict[bytes, bytes]) -> int | None:
        """Which of the accepted keys was sent."""
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        keys = self._settings.keys
        matches = [hmac.compare_digest(given.strip(), key.encode()) for key in keys]
        return matches.index(True) if any(matches) else None

    def _refusal(
        self, scope: Scope, headers: dict[bytes, bytes], key: int | None
    ) -> ServeError | None:
        most = self._settings.max_body_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > most:
            return TooLarge(f"the body is larger than {most} bytes")
        is_open = scope["path"] in _OPEN_PATHS or scope["method"] == "OPTIONS"
        if key is not None or is_open or not self._settings.keys:
            return None
        return Unauthorized("a valid key is needed: send it as Authorization: Bearer KEY")


def client_of(request: Request) -> str:
    """Who asks: a name per key, or the address where no keys are asked for."""
    return str(request.scope.get(_CLIENT, ""))


def owner_of(request: Request) -> str:
    """Whose what is kept will be: a digest of the key, or nobody's where no keys are asked for."""
    return str(request.scope.get(_OWNER, ""))


def _digest(key: str) -> str:
    return hashlib.sha256(b"gptoss owner\0" + key.encode()).hexdigest()


def _client(scope: Scope, key: int | None) -> str:
    if key is not None:
        return f"key-{key + 1}"
    address = scope.get("client")
    return str(address[0]) if address else "local"


def _noting(receive: Receive, exchange: Exchange) -> Receive:
    async def receive_and_note() -> MutableMapping[str, Any]:
        message = await receive()
        exchange.received(message)
        return message

    return receive_and_note


async def _hang_up(scope: Scope) -> None:
    """Drop the connection without waiting for what the client has not read."""
    abort = scope.get("extensions", {}).get("gptoss.abort")
    if abort is not None:
        abort()
        await asyncio.sleep(0)  # the server hears of it in its next step


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
