"""Kept responses: SQLite in a file or in memory, written before the client hears `completed`.

A record holds what the API shows and, beside it, the conversation in the model's own words, so
that `previous_response_id` continues exactly where the model was. Deleting removes all of it from
the file, not just from the index (`secure_delete`).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from gptoss_serve.errors import ServeError

Result = TypeVar("Result")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, expires REAL NOT NULL, status TEXT NOT NULL, data BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS responses_expire ON responses (expires);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A kept response.

    Attributes:
        response: the object that the API shows.
        input_items: what the request brought, with ids.
        messages: the conversation so far as harmony writes it, without system and developer.
        calls: recipient of each call of the conversation by its id.
        tool_states: what our tools must remember.
        events: of a background stream, for resuming; else empty.
    """

    response: dict[str, Any]
    input_items: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    calls: dict[str, str] = field(default_factory=dict)
    tool_states: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def packed(self) -> bytes:
        """The record as bytes."""
        names = ("response", "input_items", "messages", "calls", "tool_states", "events")
        document = {name: getattr(self, name) for name in names}
        return zlib.compress(json.dumps(document, ensure_ascii=False).encode(), 1)

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """What `packed` wrote."""
        return cls(**json.loads(zlib.decompress(data)))


class ResponseStore:
    """Keeps responses for a while.

    Args:
        path: the file; None keeps them in memory.
        seconds_to_live: after which they are forgotten.
        clock: seconds since the epoch.

    Raises:
        ServeError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        seconds_to_live: float = 30 * 86400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ttl = seconds_to_live
        self._clock = clock
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                ":memory:" if path is None else path, check_same_thread=False, timeout=30
            )
            weakref.finalize(self, self._db.close)  # also where the lines below fail
            if path is not None:
                self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ServeError(
                f"cannot open the store of responses {path}: {error}; name another file with "
                "--store, or switch it off with --store off"
            ) from error

    async def put(self, record: Record) -> None:
        """Keep a record, replacing an older one of the same id; returns once it is written."""
        response = record.response
        data = await asyncio.to_thread(record.packed)
        row = (response["id"], self._clock() + self._ttl, response["status"], data)
        await self._run(
            lambda db: db.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", row)
        )

    async def get(self, response_id: str) -> Record | None:
        """The record of an id, if it is kept."""

        def read(db: sqlite3.Connection) -> Any:
            query = "SELECT data FROM responses WHERE id = ? AND expires > ?"
            return db.execute(query, (response_id, self._clock())).fetchone()

        row = await self._run(read)
        return None if row is None else await asyncio.to_thread(Record.unpacked, row[0])

    async def delete(self, response_id: str) -> bool:
        """Forget a record; returns whether there was one."""

        def remove(db: sqlite3.Connection) -> int:
            return db.execute("DELETE FROM responses WHERE id = ?", (response_id,)).rowcount

        return await self._run(remove) > 0

    async def expire(self) -> int:
        """Forget what is over its time; returns how many."""

        def remove(db: sqlite3.Connection) -> int:
            query = "DELETE FROM responses WHERE expires <= ?"
            return db.execute(query, (self._clock(),)).rowcount

        return await self._run(remove)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    async def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return await asyncio.to_thread(self._locked, work)

    def _locked(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        with self._lock, self._db:
            return work(self._db)
