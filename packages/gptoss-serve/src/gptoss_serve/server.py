"""The HTTP server around the application: patience with connections, and how it ends.

The first SIGTERM or SIGINT drains: whoever is being answered is answered to the end, new requests
get 503 and `/health` says so, until nothing runs or the time is over. The second ends at once.

A connection that asks nothing and takes nothing for a while (headers sent byte by byte, an answer
never read) is dropped. The parser is h11, whatever else is installed, because it bounds headers.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from functools import partial
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from gptoss_serve.limits import Admission
from gptoss_serve.settings import ServerSettings

_HEADER_BYTES = 64 * 1024
_SEND_BYTES = 128 * 1024
_LAST_SECONDS = 5.0


class DrainingServer(uvicorn.Server):
    """Serves an application of `create_app`; says where it listens, once it does.

    Args:
        app: the application.
        host: address to listen on.
        port: 0 takes any.
        settings: those of the application.
    """

    def __init__(self, app: FastAPI, *, host: str, port: int, settings: ServerSettings) -> None:
        protocol: Any = partial(PatientProtocol, seconds=settings.client_seconds)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=protocol,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            log_level="warning",
            access_log=False,
            ws="none",
            lifespan="on",
        )
        super().__init__(config)
        self._admission: Admission = app.state.admission
        self._settings = settings
        self._told = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then print the address."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            address = f"[{host}]" if ":" in host else host
            sys.stderr.write(f"serving on http://{address}:{port}/v1\n")
            sys.stderr.flush()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: the first drains, the second ends.

        Uvicorn would raise it again at the end: the process would die of it with its engine and
        store still open.
        """
        if self._told:
            self._loop.call_soon_threadsafe(self._end)
            # Whatever hangs in a thread, a tool or a driver, must not keep the process.
            last = threading.Timer(_LAST_SECONDS, os._exit, [1])
            last.daemon = True
            last.start()
        self._told = True

    def _end(self) -> None:
        self.should_exit = True
        self._admission.begin_drain(0.0)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: stop once the drain is over."""
        if self._told and not self.should_exit:
            self._admission.begin_drain(self._settings.drain_seconds)
            left = self._admission.seconds_left
            self.should_exit = self._admission.idle or left <= 0
            # Answers that are made may still be on their way to slow readers.
            self.config.timeout_graceful_shutdown = max(1, int(left))
        return await super().on_tick(counter)


class PatientProtocol(H11Protocol):
    """A connection that is looked at now and then, and dropped where it only wastes room."""

    def __init__(self, *args: Any, seconds: float, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.app = _with_abort(self.app, self)
        self._seconds = seconds
        self._resting: object = None
        self._look_again: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look; let the kernel hold little for those who read slowly."""
        super().connection_made(transport)
        plug = transport.get_extra_info("socket")
        if plug is not None:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self._look_again = self.loop.call_later(self._seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._look_again is not None:
            self._look_again.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; what the parser cannot even refuse properly ends the connection."""
        try:
            super().data_received(data)
        except (h11.ProtocolError, ValueError):
            self.transport.abort()

    def _look(self) -> None:
        is_asking = self.cycle is not None and not self.cycle.response_complete
        rests_after = self.cycle or self
        if not is_asking and self._resting is rests_after:
            self.transport.abort()
            return
        self._resting = None if is_asking else rests_after
        self._look_again = self.loop.call_later(self._seconds, self._look)


def _with_abort(app: Any, protocol: H11Protocol) -> ASGIApp:
    """Let the application drop the connection, for clients that have stopped reading."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {"gptoss.abort": protocol.transport.abort}
        await app(scope, receive, send)

    return wrapped
