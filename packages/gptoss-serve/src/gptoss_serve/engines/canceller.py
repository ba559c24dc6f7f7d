"""How an answer that comes over HTTP is cut off by another thread than the one that reads it."""

from __future__ import annotations

import contextlib
import socket

import httpx


class Canceller:
    """Closes the connection that an answer comes over, from any thread."""

    def __init__(self) -> None:
        self.cancelled = False
        self._answer: httpx.Response | None = None

    def watch(self, answer: httpx.Response) -> None:
        """From now on this is the answer to cut off."""
        self._answer = answer
        if self.cancelled:
            self.cancel()

    def cancel(self) -> None:
        """Wake the reader; the server stops work on a request whose client has left."""
        self.cancelled = True
        answer = self._answer
        if answer is not None:
            connection = answer.extensions["network_stream"].get_extra_info("socket")
            with contextlib.suppress(OSError):  # the answer may have ended meanwhile
                connection.shutdown(socket.SHUT_RDWR)
