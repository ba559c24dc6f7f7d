"""The access log: one JSON line per request, without any text of the conversation unless asked.

```
{"time": "2026-11-22T10:00:00.120Z", "request_id": "req_1f..", "client": "key-1", "method": "POST",
 "path": "/v1/responses", "status": 200, "seconds": 1.2034, "first_byte_seconds": 0.0412,
 "received_bytes": 210, "sent_bytes": 18044}
```

Where prompts are wanted the body of the request stands in `request`, as text.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from starlette.types import Scope

_log = logging.getLogger("gptoss_serve.access")

GONE = 499  # the client went away before an answer began


class Exchange:
    """What is noted of one request while it passes.

    Args:
        scope: of the request.
        request_id: its id.
        client: who asked.
        keep_body: remember the body for the log.

    Attributes:
        client: as given.
        request_id: as given.
        status: of the answer.
        started: whether the answer began.
        trace_id: of its trace, where there is one.
    """

    def __init__(self, scope: Scope, request_id: str, client: str, *, keep_body: bool) -> None:
        self._scope = scope
        self.client = client
        self._body: list[bytes] | None = [] if keep_body else None
        self._begun = time.time()
        self._clock = time.perf_counter()
        self._first_byte: float | None = None
        self._received = 0
        self._sent = 0
        self.request_id = request_id
        self.status = GONE
        self.trace_id: str | None = None

    @property
    def method(self) -> str:
        """Of HTTP."""
        return str(self._scope["method"])

    @property
    def path(self) -> str:
        """As it came, without the query."""
        return str(self._scope["path"])

    @property
    def started(self) -> bool:
        """Whether the answer began."""
        return self._first_byte is not None

    @property
    def seconds(self) -> float:
        """Since the request came."""
        return time.perf_counter() - self._clock

    @property
    def route(self) -> str:
        """The pattern that the path matched, so that labels stay few."""
        return str(getattr(self._scope.get("route"), "path", "other"))

    def received(self, message: MutableMapping[str, Any]) -> None:
        """Note a message from the client."""
        body = message.get("body", b"")
        self._received += len(body)
        if self._body is not None:
            self._body.append(body)

    def sent(self, message: MutableMapping[str, Any]) -> None:
        """Note a message to the client."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._first_byte = self.seconds
        self._sent += len(message.get("body", b""))

    def write(self) -> None:
        """Write the line; the request is over."""
        if not _log.isEnabledFor(logging.INFO):
            return
        first = self._first_byte
        line = {
            "time": datetime.fromtimestamp(self._begun, UTC).isoformat(timespec="milliseconds"),
            "request_id": self.request_id,
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "seconds": round(self.seconds, 4),
            "first_byte_seconds": None if first is None else round(first, 4),
            "received_bytes": self._received,
            "sent_bytes": self._sent,
        }
        if self.trace_id is not None:
            line["trace_id"] = self.trace_id
        if self._body is not None:
            line["request"] = b"".join(self._body).decode("utf-8", "replace")
        _log.info(json.dumps(line))
