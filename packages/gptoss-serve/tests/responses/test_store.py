"""The store: what is written stays, what is deleted is gone, also after a kill."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gptoss_serve.errors import ServeError
from gptoss_serve.responses.store import Record, ResponseStore

WRITER = """
import asyncio, os, sys
from pathlib import Path
from gptoss_serve.responses.store import Record, ResponseStore

async def main():
    store = ResponseStore(Path(sys.argv[1]))
    for count in range(int(sys.argv[2]) if len(sys.argv) > 2 else 100000):
        number = os.getpid() * 1000000 + count
        output = [{"id": f"msg_{number}"}]
        response = {"id": f"resp_{number}", "status": "completed", "text": "x" * 5000}
        await store.put(Record(response={**response, "output": output}))
        print(number, flush=True)
        if count % 7 == 0:  # deletions empty the log, which a kill may hit as well
            await store.put(Record(response={**response, "id": "doomed"}))
            await store.delete("doomed")
    store.close()

asyncio.run(main())
"""
KILLS = int(os.environ.get("GPTOSS_KILLS", "3"))


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


def files_of(path: Path) -> bytes:
    """Everything that the database keeps in its folder."""
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


@pytest.mark.parametrize("size", [10, 3_000, 300_000])
def test_deleting_really_deletes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "r.sqlite"
    store = ResponseStore(path)
    text = random.Random(1).randbytes(size).hex()  # does not compress away
    doomed = Record(
        response={"id": "a", "status": "completed", "output": [{"id": "msg_needle"}], "text": text}
    )
    packed = doomed.packed()
    needles = [packed[at : at + 48] for at in range(24, len(packed) - 80, 900)] or [packed[24:60]]

    written: list[bytes] = []

    async def run() -> None:
        await store.put(record("kept"))
        await store.put(doomed)
        await store.put(doomed)  # the bytes of the older version too
        there = files_of(path)
        written.extend(needle for needle in needles if needle in there)  # not across two pages
        assert written
        assert b"msg_needle" in files_of(path)
        assert await store.delete("a") is True
        assert await store.delete("a") is False
        assert await store.item("msg_needle") is None

    asyncio.run(run())
    left = files_of(path)  # while the store is open, and before anything folds its log
    assert not any(needle in left for needle in written)
    assert b"msg_needle" not in left
    assert asyncio.run(store.get("kept")) is not None
    store.close()


def test_what_is_over_its_time_leaves_the_file(tmp_path: Path) -> None:
    path, now = tmp_path / "r.sqlite", [0.0]
    store = ResponseStore(path, seconds_to_live=100, clock=lambda: now[0])
    text = random.Random(2).randbytes(4_000).hex()
    needle = record("a", text).packed()[200:260]

    async def run() -> None:
        await store.put(record("a", text))
        now[0] = 99
        await store.put(record("b"))
        assert await store.expire() == 0
        assert needle in files_of(path)
        now[0] = 190  # a is over, b is not
        assert await store.expire() == 1
        assert needle not in files_of(path)
        assert await store.get("b") is not None

    asyncio.run(run())
    store.close()


def test_items_are_found_as_long_as_a_response_holds_them(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "r.sqlite")
    item = {"id": "msg_1", "type": "message"}

    async def run() -> None:
        response = {"id": "a", "status": "completed", "output": [item]}
        await store.put(Record(response=response))
        await store.put(Record(response={**response, "id": "b", "output": []}, input_items=[item]))
        assert await store.item("msg_1") == item
        await store.delete("a")
        assert await store.item("msg_1") == item
        await store.delete("b")
        assert await store.item("msg_1") is None

    asyncio.run(run())
    store.close()


def test_a_lease_is_renewed_given_up_and_asked_back() -> None:
    now = [0.0]
    store = ResponseStore(None, clock=lambda: now[0])
    made = Record(response={"id": "a", "status": "queued"})

    async def run() -> None:
        await store.put(made, lease=10)
        assert await store.is_being_made("a")
        now[0] = 9
        assert await store.renew(["a"], lease=10) == set()
        now[0] = 18
        assert await store.is_being_made("a")
        await store.ask_to_stop("a")
        assert await store.renew(["a", "deleted"], lease=10) == {"a", "deleted"}
        now[0] = 29
        assert not await store.is_being_made("a")
        assert await store.replace(made, last=False)
        assert await store.replace(made, last=True)
        assert not await store.replace(made, last=True), "the lease was given up"
        await store.put(made, lease=10)
        await store.delete("a")
        assert not await store.replace(made, last=True), "what is deleted stays deleted"
        assert await store.get("a") is None

    asyncio.run(run())
    store.close()


def read_until_killed(path: Path, seed: int) -> list[int]:
    """Let a process write and kill it at a random moment; returns what it reported as written."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    reported = [int(process.stdout.readline())]
    chance = random.Random(seed)
    enough, delay = reported[0] + chance.randrange(1, 40), chance.random() * 0.01
    while reported[-1] < enough:
        reported.append(int(process.stdout.readline()))
    threading.Event().wait(delay)  # somewhere within a write
    os.kill(process.pid, signal.SIGKILL)
    reported += [int(line) for line in process.stdout.read().split("\n")[:-1] if line]
    process.stdout.close()
    process.wait()
    return reported


def test_a_kill_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    reported: list[int] = []
    for seed in range(KILLS):
        reported += read_until_killed(path, seed)
        store = ResponseStore(path)
        check = store._db.execute("PRAGMA integrity_check").fetchone()
        assert check == ("ok",)

        asyncio.run(assert_kept(store, reported))
        store.close()


async def assert_kept(store: ResponseStore, numbers: list[int]) -> None:
    for number in numbers:
        kept = await store.get(f"resp_{number}")
        assert kept is not None, number
        assert kept.response["text"] == "x" * 5000
        assert await store.item(f"msg_{number}") is not None


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), "40"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    reported = [int(n) for w in writers for n in w.communicate(timeout=120)[0].split()]
    assert [w.returncode for w in writers] == [0, 0]
    assert len(set(reported)) == 80
    store = ResponseStore(path)

    asyncio.run(assert_kept(store, reported))
    store.close()


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "deep" / "r.sqlite")
    asyncio.run(store.put(record("a")))
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "deep").iterdir()}
    assert modes == {0o600}
    store.close()


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database" * 100)
    with pytest.raises(ServeError, match="--store"):
        ResponseStore(tmp_path / "file")
