"""Kept responses belong to the key that asked for them: to another key they are not there."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions
from gptoss_serve import ServerSettings, create_app
from gptoss_serve.responses.store import Record, ResponseStore

Json = dict[str, Any]
HI = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi."
LONG = "<|channel|>final<|message|>" + "word " * 3000 + "<|return|>"
MINE, OTHER = ({"authorization": f"Bearer {key}"} for key in ("k1", "k2"))


@contextlib.asynccontextmanager
async def server(
    store: ResponseStore, *keys: str, reply: str = HI + "<|return|>", pace: float = 0.0
) -> AsyncIterator[httpx.AsyncClient]:
    """An application in process, which asks for one of the keys."""
    engine = ScriptedEngine(Recording([reply] * 8), ScriptedOptions(tokens_per_second=pace))
    settings = ServerSettings(drain_seconds=1, keys=keys)
    app = create_app(engine, settings=settings, store=store)
    transport = httpx.ASGITransport(app)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test/v1") as http,
        ):
            yield http
    finally:
        engine.close()


async def assert_hidden(http: httpx.AsyncClient, kept: Json, key: Json) -> None:
    """Whatever a key asks of a response is what it hears of one that never was."""
    ways = (
        ("GET", "/responses/{}"),
        ("GET", "/responses/{}?stream=true"),
        ("GET", "/responses/{}/input_items"),
        ("POST", "/responses/{}/cancel"),
        ("DELETE", "/responses/{}"),
    )
    never = "resp_never"
    for method, path in ways:
        answer = await http.request(method, path.format(kept["id"]), headers=key)
        unknown = await http.request(method, path.format(never), headers=key)
        assert answer.status_code == unknown.status_code == 404, (method, path)
        assert answer.json() == _renamed(unknown.json(), never, kept["id"])
    for path in ("/responses", "/responses/input_tokens", "/responses/compact"):
        body = {"input": "And?", "previous_response_id": kept["id"]}
        answer = await http.post(path, json=body, headers=key)
        assert answer.status_code == 404, path
        assert answer.json()["error"]["param"] == "previous_response_id"


def _renamed(answer: Json, old: str, new: str) -> Json:
    error = {**answer["error"], "message": answer["error"]["message"].replace(old, new)}
    return {**answer, "error": error}


def test_another_key_finds_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        store = ResponseStore(tmp_path / "r.sqlite")
        async with server(store, "k1", "k2") as http:
            made = (await http.post("/responses", json={"input": "Hi"}, headers=MINE)).json()
            await assert_hidden(http, made, OTHER)
            named = [{"type": "item_reference", "id": made["output"][-1]["id"]}]
            for path in ("/responses", "/responses/input_tokens", "/responses/compact"):
                body = {"input": [*named, {"role": "user", "content": "And?"}]}
                refused = await http.post(path, json=body, headers=OTHER)
                assert (refused.status_code, refused.json()["error"]["code"]) == (
                    404,
                    "item_not_found",
                )
                assert (await http.post(path, json=body, headers=MINE)).status_code == 200
            path = f"/responses/{made['id']}"
            assert (await http.get(path, headers=MINE)).json() == made
            on = {"input": "And?", "previous_response_id": made["id"]}
            assert (await http.post("/responses", json=on, headers=MINE)).status_code == 200
        async with server(store, "k2", "k3", "k1") as http:  # another order, another process
            await assert_hidden(http, made, OTHER)
            assert (await http.get(path, headers=MINE)).json() == made
            assert (await http.delete(path, headers=MINE)).status_code == 200
            assert (await http.get(path, headers=MINE)).status_code == 404
        store.close()

    asyncio.run(run())
    with contextlib.closing(sqlite3.connect(tmp_path / "r.sqlite")) as db:
        owners = [owner for (owner,) in db.execute("SELECT owner FROM owners")]
    assert owners, "what was not deleted still has its owner"
    assert not {"k1", "key-1"} & set(owners), "a digest, not the key or its place"


def test_another_key_cannot_stop_what_runs() -> None:
    async def run() -> None:
        store = ResponseStore(None)
        async with server(store, "k1", "k2", reply=LONG, pace=50.0) as http:
            body = {"input": "Hi", "background": True, "stream": False}
            made = (await http.post("/responses", json=body, headers=MINE)).json()
            await assert_hidden(http, made, OTHER)
            running = (await http.get(f"/responses/{made['id']}", headers=MINE)).json()
            assert running["status"] in ("queued", "in_progress")
            stopped = await http.post(f"/responses/{made['id']}/cancel", headers=MINE)
            assert stopped.json()["status"] == "cancelled"
        store.close()

    asyncio.run(run())


@pytest.mark.parametrize("keys", [(), ("k1", "k2")])
def test_a_store_from_before_there_were_owners_opens(tmp_path: Path, keys: tuple[str, ...]) -> None:
    path = tmp_path / "r.sqlite"

    async def run() -> None:
        store = ResponseStore(path)
        async with server(store) as http:
            made = (await http.post("/responses", json={"input": "Hi"})).json()
        store.close()
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("DROP TABLE owners")
        store = ResponseStore(path)
        async with server(store, *keys) as http:
            kept = await http.get(f"/responses/{made['id']}", headers=OTHER if keys else None)
            assert kept.json() == made, "nobody's response is anybody's"
        store.close()

    asyncio.run(run())


def test_an_item_of_two_owners_is_found_for_each() -> None:
    store = ResponseStore(None)

    def holding(name: str, text: str) -> Record:
        item = {"id": "msg_1", "type": "message", "content": text}
        return Record(response={"id": name, "status": "completed"}, input_items=[item])

    async def run() -> None:
        await store.put(holding("a", "of a"), owner="a")
        await store.put(holding("b", "of b"), owner="b")
        for owner in "ab":
            item = await store.item("msg_1", owner=owner)
            assert item is not None
            assert item["content"] == f"of {owner}"
        for stranger in ("", "c"):
            assert await store.item("msg_1", owner=stranger) is None
            assert not await store.shows("a", owner=stranger)

    asyncio.run(run())
    store.close()
