"""What every request passes through: its id, the key, the log line and the counters.

A plain ASGI layer, so that streams pass through untouched.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_serve.errors import TooLarge, Unauthorized
from gptoss_serve.metrics import Metrics
from gptoss_serve.settings import ServerSettings
from gptoss_serve.wire import error_response

_log = logging.getLogger("gptoss_serve.access")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,128}")
_OPEN_PATHS = ("/health", "/")


class Guard:
    """Wraps the application.

    Args:
        app: what answers.
        settings: keys and limits.
        metrics: counts.
    """

    def __init__(self, app: ASGIApp, *, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        status = 499  # the client went away before an answer began

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id)]
                message = {**message, "headers": headers}
            await send(message)

        try:
            refused = self._refusal(scope)
            if refused is None:
                await self._app(scope, receive, send_with_id)
            else:
                await error_response(refused)(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.count(_route(scope), status, seconds)
            _log.info(
                json.dumps(
                    {
                        "request_id": request_id.decode(),
                        "method": scope["method"],
                        "path": scope["path"],
                        "status": status,
                        "seconds": round(seconds, 4),
                    }
                )
            )

    def _refusal(self, scope: Scope) -> Unauthorized | TooLarge | None:
        headers = dict(scope["headers"])
        most = self._settings.max_body_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > most:
            return TooLarge(f"the body is larger than {most} bytes")
        keys = self._settings.keys
        if not keys or scope["path"] in _OPEN_PATHS or scope["method"] == "OPTIONS":
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        matches = [hmac.compare_digest(given.strip(), key.encode()) for key in keys]
        if scheme.lower() == b"bearer" and any(matches):
            return None
        return Unauthorized("a valid key is needed: send it as Authorization: Bearer KEY")


def _request_id(scope: Scope) -> bytes:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}".encode()


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path", "other"))
