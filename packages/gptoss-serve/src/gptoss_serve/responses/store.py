"""Kept responses: SQLite in a file or in memory, written before the client hears `completed`.

A record holds what the API shows and, beside it, the conversation in the model's own words, so
that `previous_response_id` continues exactly where the model was. Deleting removes all of it from
the file, not just from the index: freed pages are overwritten (`secure_delete`) and the log that
still holds them is emptied.

Several servers may share a file. A response that is still being made has a lease, which its maker
renews: a lease that has run out means that the maker is gone, and another server asks the maker to
stop by marking it.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from gptoss_serve.errors import ServeError

Result = TypeVar("Result")
Row = tuple[str, float, str, bytes]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, expires REAL NOT NULL, status TEXT NOT NULL, data BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS responses_expire ON responses (expires);
CREATE TABLE IF NOT EXISTS items (
    id TEXT NOT NULL, response TEXT NOT NULL, PRIMARY KEY (id, response)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_of_response ON items (response);
CREATE TABLE IF NOT EXISTS leases (
    id TEXT PRIMARY KEY, until REAL NOT NULL, stop INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owners (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL
) WITHOUT ROWID;
"""
# What has no owner is anybody's: made without keys, or before there were owners.
_VISIBLE = (
    "expires > ? AND NOT EXISTS "
    "(SELECT 1 FROM owners WHERE owners.id = responses.id AND owner != ?)"
)
_TOUCH = "UPDATE leases SET until = until WHERE id = ?"
_FIELDS = (
    *("response", "input_items", "messages", "developer", "calls"),
    *("tool_states", "include", "is_stream", "events"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A kept response.

    Attributes:
        response: the object that the API shows.
        input_items: what the request brought, with ids.
        messages: the conversation so far as harmony writes it, without system and developer.
        developer: texts of the system and developer messages among the items so far; the field
            `instructions` is not here, because it holds for one response only.
        calls: recipient of each call of the conversation by its id.
        tool_states: what our tools must remember.
        include: what the request asked to include.
        is_stream: whether it was made with background and stream, so that it can be resumed.
        events: of a background stream, for resuming; else empty.
    """

    response: dict[str, Any]
    input_items: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    developer: list[str] = field(default_factory=list)
    calls: dict[str, str] = field(default_factory=dict)
    tool_states: dict[str, Any] = field(default_factory=dict)
    include: list[str] = field(default_factory=list)
    is_stream: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)

    def packed(self) -> bytes:
        """The record as bytes."""
        document = {name: getattr(self, name) for name in _FIELDS}
        return zlib.compress(json.dumps(document, ensure_ascii=False).encode(), 1)

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """What `packed` wrote."""
        return cls(**json.loads(zlib.decompress(data)))

    @property
    def items(self) -> list[dict[str, Any]]:
        """All items that `item_reference` can name."""
        return [*self.response.get("output", ()), *self.input_items]


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
                path.touch(mode=0o600)  # conversations are nobody else's business
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

    async def put(self, record: Record, *, lease: float | None = None, owner: str = "") -> None:
        """Keep a record, replacing an older one of the same id; returns once it is written.

        Args:
            record: what to keep.
            lease: seconds for which it counts as being made, unless `renew` adds more; None if it
                is final.
            owner: who alone may see it; "" is everybody.
        """
        rows = await asyncio.to_thread(self._rows, record)
        response_id = record.response["id"]

        def write(db: sqlite3.Connection) -> None:
            _write(db, *rows)
            if owner:
                db.execute("INSERT OR REPLACE INTO owners VALUES (?, ?)", (response_id, owner))
            if lease is not None:
                until = self._clock() + lease
                db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, 0)", (response_id, until))

        await self._run(write)

    async def replace(self, record: Record, *, last: bool) -> bool:
        """Write a response with a lease again, unless it was deleted; returns whether it was there.

        Args:
            record: as it stands now.
            last: it is final; gives up the lease.
        """
        rows = await asyncio.to_thread(self._rows, record)
        response_id = record.response["id"]

        def write(db: sqlite3.Connection) -> bool:
            # Writing first takes the file's lock, so that nobody deletes it in between.
            touch = "DELETE FROM leases WHERE id = ?" if last else _TOUCH
            if not db.execute(touch, (response_id,)).rowcount:
                return False
            _write(db, *rows)
            return True

        return await self._run(write)

    async def renew(self, response_ids: Collection[str], *, lease: float) -> set[str]:
        """Renew leases; returns those whose response shall be stopped, or was deleted."""

        def write(db: sqlite3.Connection) -> set[str]:
            until = self._clock() + lease
            wanted = set(response_ids)
            for response_id in response_ids:
                db.execute("UPDATE leases SET until = ? WHERE id = ?", (until, response_id))
                query = "SELECT 1 FROM leases WHERE id = ? AND NOT stop"
                if db.execute(query, (response_id,)).fetchone():
                    wanted.discard(response_id)
            return wanted

        return await self._run(write)

    async def ask_to_stop(self, response_id: str) -> None:
        """Mark a response that another server makes."""
        query = "UPDATE leases SET stop = 1 WHERE id = ?"
        await self._run(lambda db: db.execute(query, (response_id,)))

    async def is_being_made(self, response_id: str) -> bool:
        """Whether somebody holds the lease of a response."""
        query = "SELECT 1 FROM leases WHERE id = ? AND until > ?"
        row = (response_id, self._clock())
        return await self._run(lambda db: db.execute(query, row).fetchone()) is not None

    async def get(self, response_id: str) -> Record | None:
        """The record of an id, if it is kept."""
        return await self._find(
            "SELECT data FROM responses WHERE id = ? AND expires > ?", response_id
        )

    async def shows(self, response_id: str, *, owner: str = "") -> bool:
        """Whether a response is kept, and is that owner's or anybody's."""
        query = f"SELECT 1 FROM responses WHERE id = ? AND {_VISIBLE}"
        row = (response_id, self._clock(), owner)
        return await self._run(lambda db: db.execute(query, row).fetchone()) is not None

    async def item(self, item_id: str, *, owner: str = "") -> dict[str, Any] | None:
        """An item of the input or output of any kept response that the owner may see."""
        query = (
            "SELECT data FROM items JOIN responses ON responses.id = items.response "
            f"WHERE items.id = ? AND {_VISIBLE} LIMIT 1"
        )
        record = await self._find(query, item_id, owner)
        items = [] if record is None else record.items
        return next((item for item in items if item.get("id") == item_id), None)

    async def delete(self, response_id: str) -> bool:
        """Forget a record; returns whether there was one."""

        def remove(db: sqlite3.Connection) -> int:
            count = db.execute("DELETE FROM responses WHERE id = ?", (response_id,)).rowcount
            db.execute("DELETE FROM items WHERE response = ?", (response_id,))
            db.execute("DELETE FROM leases WHERE id = ?", (response_id,))
            db.execute("DELETE FROM owners WHERE id = ?", (response_id,))
            return count

        return await self._run(remove, empty_log=True) > 0

    async def expire(self) -> int:
        """Forget what is over its time; returns how many."""

        def remove(db: sqlite3.Connection) -> int:
            now = (self._clock(),)
            count = db.execute("DELETE FROM responses WHERE expires <= ?", now).rowcount
            for table, column in (("items", "response"), ("leases", "id"), ("owners", "id")):
                db.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT id FROM responses)")
            return count

        return await self._run(remove, empty_log=True)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _rows(self, record: Record) -> tuple[Row, list[str]]:
        response = record.response
        row = (response["id"], self._clock() + self._ttl, response["status"], record.packed())
        return row, [item["id"] for item in record.items if "id" in item]

    async def _find(self, query: str, name: str, *more: str) -> Record | None:
        values = (name, self._clock(), *more)
        row = await self._run(lambda db: db.execute(query, values).fetchone())
        return None if row is None else await asyncio.to_thread(Record.unpacked, row[0])

    async def _run(
        self, work: Callable[[sqlite3.Connection], Result], *, empty_log: bool = False
    ) -> Result:
        return await asyncio.to_thread(self._locked, work, empty_log)

    def _locked(self, work: Callable[[sqlite3.Connection], Result], empty_log: bool) -> Result:
        with self._lock:
            with self._db:
                result = work(self._db)
            if empty_log:  # what was deleted is still in the log
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return result


def _write(db: sqlite3.Connection, row: Row, item_ids: list[str]) -> None:
    db.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", row)
    db.execute("DELETE FROM items WHERE response = ?", (row[0],))
    pairs = [(item_id, row[0]) for item_id in item_ids]
    db.executemany("INSERT OR IGNORE INTO items VALUES (?, ?)", pairs)
