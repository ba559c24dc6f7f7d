"""The store: what is written stays, what is deleted is gone, also after a kill."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_serve.errors import ServeError
from gptoss_serve.responses.store import Record, ResponseStore

WRITER = """
import asyncio, sys
from pathlib import Path
from gptoss_serve.responses.store import Record, ResponseStore

async def main():
    store = ResponseStore(Path(sys.argv[1]))
    for number in range(100000):
        response = {"id": f"resp_{number}", "status": "completed", "text": "x" * 5000}
        await store.put(Record(response=response))
        print(number, flush=True)

asyncio.run(main())
"""


def record(name: str, text: str = "") -> Record:
    return Record(response={"id": name, "status": "completed", "text": text})


def test_what_is_put_can_be_had_until_it_expires(tmp_path: Path) -> None:
    now = [0.0]
    store = ResponseStore(tmp_path / "r.sqlite", seconds_to_live=10, clock=lambda: now[0])

    async def run() -> None:
        await store.put(record("a", "é" * 3))
        kept = await store.get("a")
        assert kept == record("a", "é" * 3)
        assert await store.get("b") is None
        now[0] = 11
        assert await store.get("a") is None
        assert await store.expire() == 1

    asyncio.run(run())
    store.close()


def test_deleting_really_deletes(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    store = ResponseStore(path)
    packed = record("a", "needle " * 100).packed()

    async def run() -> None:
        await store.put(record("a", "needle " * 100))
        assert await store.delete("a") is True
        assert await store.delete("a") is False

    asyncio.run(run())
    store.close()  # folds the log into the file
    left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert packed[20:60] not in left


def test_a_kill_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 60:
            break
    os.kill(process.pid, signal.SIGKILL)
    reported = [int(line) for line in process.stdout.read().split()[:-1]] or [60]
    process.stdout.close()
    process.wait()
    store = ResponseStore(path)

    async def run() -> None:
        for number in range(reported[-1] + 1):
            assert await store.get(f"resp_{number}") is not None

    asyncio.run(run())
    store.close()


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database" * 100)
    with pytest.raises(ServeError, match="--store"):
        ResponseStore(tmp_path / "file")
