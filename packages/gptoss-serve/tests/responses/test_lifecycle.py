"""After the request: kept, named, continued, compacted, stopped; two servers on one store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI
from openai.types.responses import InputTokenCountResponse

from gptoss_harmony import load_encoding
from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions
from gptoss_serve import ServerSettings, create_app
from gptoss_serve.responses.store import Record, ResponseStore

Json = dict[str, Any]
FINAL = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi."
LONG = "<|channel|>final<|message|>" + "word " * 3000 + "<|return|>"


class Prompts:
    """A script that remembers its prompts and answers `replies` in turn."""

    def __init__(self, *replies: str) -> None:
        self._recording = Recording(list(replies))
        self.seen: list[str] = []

    def __call__(self, prompt: Any) -> Any:
        self.seen.append(load_encoding().decode(prompt.tokens))
        return self._recording(prompt)


@contextlib.asynccontextmanager
async def server(
    *replies: str, store: ResponseStore | None = None, pace: float = 0.0, context: int = 50_000
) -> AsyncIterator[tuple[httpx.AsyncClient, Prompts]]:
    """An application in process; its engine says `replies` in turn."""
    script = Prompts(*(replies or (FINAL + "<|return|>",)))
    engine = ScriptedEngine(script, ScriptedOptions(tokens_per_second=pace, context=context))
    kept = store or ResponseStore(None)
    settings = ServerSettings(drain_seconds=1)
    app = create_app(engine, settings=settings, store=kept)
    transport = httpx.ASGITransport(app)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test/v1") as http,
        ):
            yield http, script
    finally:
        engine.close()
        if store is None:
            kept.close()


async def create(http: httpx.AsyncClient, **body: Any) -> Json:
    answer = await http.post("/responses", json=body)
    assert answer.status_code == 200, answer.text
    response: Json = answer.json()
    return response


async def until(http: httpx.AsyncClient, response_id: str, *statuses: str) -> Json:
    """Poll until a response has one of the statuses."""
    async with asyncio.timeout(120):
        while True:
            response: Json = (await http.get(f"/responses/{response_id}")).json()
            if response["status"] in statuses:
                return response
            await asyncio.sleep(0.02)


def test_items_can_be_named_instead_of_sent(conformance: Any) -> None:
    async def run() -> None:
        async with server() as (http, script):
            first = await create(http, input=[{"role": "user", "content": "One"}])
            asked = (await http.get(f"/responses/{first['id']}/input_items")).json()["data"][0]
            names = [asked["id"], *(item["id"] for item in first["output"])]
            items: list[Json] = [{"type": "item_reference", "id": name} for name in names]
            del items[0]["type"]  # OpenAI's client may leave it out
            items.append({"role": "user", "content": "Two"})
            second = await create(http, input=items)
            listing = (
                await http.get(f"/responses/{second['id']}/input_items", params={"order": "asc"})
            ).json()
            conformance.item_list(listing)
            assert [item["type"] for item in listing["data"]] == [
                *("message", "reasoning", "message", "message")
            ]
            tail = "".join(script.seen[1].partition("<|start|>user")[1:])
            assert tail == (
                "<|start|>user<|message|>One<|end|>"
                "<|start|>assistant<|channel|>final<|message|>Hi.<|end|>"
                "<|start|>user<|message|>Two<|end|><|start|>assistant"
            )
            await http.delete(f"/responses/{first['id']}")
            for name in [first["output"][0]["id"], "msg_unknown"]:
                # The second response has it among its input, a stranger has it nowhere.
                answer = await http.post(
                    "/responses", json={"input": [{"type": "item_reference", "id": name}]}
                )
                assert answer.status_code == (404 if name == "msg_unknown" else 200)
            error = answer.json()["error"]
            assert (error["param"], error["code"]) == ("input[0].id", "item_not_found")

    asyncio.run(run())


def test_input_tokens_are_those_of_the_response() -> None:
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    body = {
        "input": [{"role": "user", "content": "Hello"}],
        "instructions": "Be kind.",
        "tools": tools,
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "high"},
    }

    async def run() -> None:
        async with server() as (http, _):
            for more in ({}, {"tool_choice": "none"}, {"truncation": "auto"}):
                counted = await http.post("/responses/input_tokens", json={**body, **more})
                told = InputTokenCountResponse.model_validate(counted.json(), strict=True)
                response = await create(http, **body, **more)
                assert told.input_tokens == response["usage"]["input_tokens"]
            went_on = {"input": "More", "previous_response_id": response["id"]}
            counted = await http.post("/responses/input_tokens", json=went_on)
            assert (
                counted.json()["input_tokens"]
                == ((await create(http, **went_on))["usage"]["input_tokens"])
            )
            for bad, param in (
                ({"conversation": "c"}, "conversation"),
                ({"personality": "friendly"}, "personality"),
                ({"stream": True}, "stream"),
            ):
                answer = await http.post("/responses/input_tokens", json={**body, **bad})
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    asyncio.run(run())


def test_a_conversation_is_compacted_and_goes_on(conformance: Any) -> None:
    summary = "<|channel|>final<|message|>Ada asked for owls; a.txt holds them.<|return|>"
    items = [
        {"role": "developer", "content": "Rhyme."},
        {"role": "user", "content": "I am Ada. " + "Many words. " * 50},
        {"role": "assistant", "content": "Hello! " * 200},
        {"role": "user", "content": "Find owls."},
    ]

    async def run() -> None:
        async with server(summary, FINAL + "<|return|>") as (http, script):
            answer = await http.post(
                "/responses/compact", json={"model": "scripted", "input": items}
            )
            assert answer.status_code == 200, answer.text
            compacted = answer.json()
            conformance.compaction(compacted)
            (sealed,) = compacted["output"]
            assert "owls" not in sealed["encrypted_content"]
            went_on = [*compacted["output"], {"role": "user", "content": "And now?"}]
            response = await create(http, input=went_on)
            assert "# Instructions\n\nRhyme." in script.seen[1]
            assert "<|channel|>final<|message|>Ada asked for owls" in script.seen[1]
            assert "<|start|>user<|message|>I am Ada. Many words." in script.seen[1]
            assert "<|start|>user<|message|>Find owls.<|end|>" in script.seen[1]
            assert "Hello! Hello!" not in script.seen[1]
            assert compacted["usage"]["output_tokens"] > 0
            page = await http.get(f"/responses/{response['id']}/input_items")
            conformance.item_list(page.json())
            again = {"model": "scripted", "previous_response_id": response["id"]}
            assert (await http.post("/responses/compact", json=again)).status_code == 200

    asyncio.run(run())


def test_openais_own_client_finds_every_method(serve: Any, final: str) -> None:
    with OpenAI(base_url=f"{serve([final]).url}/v1", api_key="x") as client:
        counted = client.responses.input_tokens.count(model="scripted", input="Hello")
        made = client.responses.create(
            model="scripted", input="Hello", background=True, stream=True, user="me"
        )
        events = list(made)
        response = events[-1].response  # type: ignore[union-attr]
        assert counted.input_tokens == response.usage.input_tokens
        resumed = client.responses.retrieve(response.id, stream=True, starting_after=4)
        assert [e.to_dict() for e in resumed] == [e.to_dict() for e in events[5:]]
        sealed = client.responses.retrieve(response.id, include=["reasoning.encrypted_content"])
        assert sealed.output[0].encrypted_content
        named = [{"type": "item_reference", "id": item.id} for item in sealed.output]
        more = client.responses.create(
            model="scripted", input=[*named, {"role": "user", "content": "x"}]
        )
        listed = list(client.responses.input_items.list(more.id, limit=1, order="asc"))
        assert [item.type for item in listed] == ["reasoning", "message", "message"]
        compacted = client.responses.compact(model="scripted", input="Hello")
        assert [item.type for item in compacted.output] == ["compaction"]
        went_on = client.responses.create(model="scripted", input=compacted.to_dict()["output"])
        assert went_on.output_text == "Hello, world!"
        assert client.responses.cancel(response.id).status == "completed"
        client.responses.delete(response.id)
        with pytest.raises(NotFoundError):
            client.responses.retrieve(response.id)


def test_a_compaction_without_a_summary_says_so() -> None:
    async def run() -> None:
        async with server("<|channel|>analysis<|message|>Hm.<|end|>") as (http, _):
            answer = await http.post("/responses/compact", json={"input": "x"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "no_summary")
            bad = await http.post("/responses/compact", json={"input": "x", "stream": True})
            assert (bad.status_code, bad.json()["error"]["param"]) == (400, "stream")
            empty = await http.post("/responses/compact", json={})
            assert (empty.status_code, empty.json()["error"]["param"]) == (400, "input")

    asyncio.run(run())


def test_a_background_response_is_queued_running_and_stopped() -> None:
    async def run() -> None:
        async with server(LONG, pace=50) as (http, _):
            queued = await create(http, input="Hi", background=True)
            assert queued["status"] in ("queued", "in_progress")
            assert (await until(http, queued["id"], "in_progress"))["output"] == []
            early = {"input": "x", "previous_response_id": queued["id"]}
            answer = await http.post("/responses", json=early)
            assert answer.json()["error"]["param"] == "previous_response_id"
            stopped = (await http.post(f"/responses/{queued['id']}/cancel")).json()
            assert stopped["status"] == "cancelled"
            assert (await http.post(f"/responses/{queued['id']}/cancel")).json() == stopped
            assert (await http.get(f"/responses/{queued['id']}")).json() == stopped
            # Stopped before it could begin, over and over.
            for _ in range(5):
                queued = await create(http, input="Hi", background=True)
                stopped = (await http.post(f"/responses/{queued['id']}/cancel")).json()
                assert stopped["status"] == "cancelled"
            plain = await http.post("/responses/nobody/cancel")
            assert (plain.status_code, plain.json()["error"]["code"]) == (404, "response_not_found")

    asyncio.run(run())


def test_only_background_responses_can_be_cancelled() -> None:
    async def run() -> None:
        async with server() as (http, _):
            response = await create(http, input="Hi")
            answer = await http.post(f"/responses/{response['id']}/cancel")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "response_id")

    asyncio.run(run())


def test_a_stream_that_is_stopped_ends_well_for_every_reader(conformance: Any) -> None:
    async def run() -> None:
        store = ResponseStore(None)
        async with server(LONG, store=store, pace=50) as (http, _):
            body = {"input": "Hi", "background": True, "stream": True}
            reading = asyncio.create_task(http.post("/responses", json=body))
            response_id = await _being_made(store)
            await until(http, response_id, "in_progress")
            stopped = (await http.post(f"/responses/{response_id}/cancel")).json()
            events = _events((await reading).text)
            assert conformance.stream(events) == stopped
            again = await http.get(f"/responses/{response_id}", params={"stream": "true"})
            assert _events(again.text) == events
        store.close()

    asyncio.run(run())


STOPS = int(os.environ.get("GPTOSS_STOPS", "12"))


def test_whenever_it_is_stopped_the_stream_ends_once_and_agrees(conformance: Any) -> None:
    """Stopped before, while and after its record is written, at moments that chance chooses."""
    chance = random.Random(STOPS)

    async def run() -> None:
        store = ResponseStore(None)
        async with server(store=store) as (http, _):
            for _ in range(STOPS):
                body = {"input": "Hi", "background": True, "stream": True}
                reading = asyncio.create_task(http.post("/responses", json=body))
                response_id = await _being_made(store)
                for _ in range(chance.randrange(60)):
                    await asyncio.sleep(0)
                stopped = (await http.post(f"/responses/{response_id}/cancel")).json()
                assert stopped["status"] in ("cancelled", "completed")
                events = _events((await reading).text)
                assert conformance.stream(events) == stopped
                assert (await http.get(f"/responses/{response_id}")).json() == stopped
                again = await http.get(f"/responses/{response_id}", params={"stream": "true"})
                assert _events(again.text) == events
                assert not await store.is_being_made(response_id)
        store.close()

    asyncio.run(run())


async def _being_made(store: ResponseStore) -> str:
    """The id of the only response that is being made."""
    async with asyncio.timeout(60):
        while True:
            rows = await store._run(lambda db: db.execute("SELECT id FROM leases").fetchall())
            if rows:
                return str(rows[0][0])
            await asyncio.sleep(0)


def _events(text: str) -> list[Json]:
    lines = [x.removeprefix("data: ") for x in text.split("\n") if x.startswith("data: {")]
    return [json.loads(line) for line in lines]


def test_two_servers_share_a_store(tmp_path: Path) -> None:
    async def run() -> None:
        stores = [ResponseStore(tmp_path / "r.sqlite") for _ in range(2)]
        async with (
            server(LONG, store=stores[0], pace=50) as (one, _),
            server(store=stores[1]) as (two, _),
        ):
            kept = await create(two, input="Hi")
            assert (await one.get(f"/responses/{kept['id']}")).json() == kept
            running = await create(one, input="Hi", background=True)
            seen = await until(two, running["id"], "in_progress")
            assert seen["output"] == []
            stopped = (await two.post(f"/responses/{running['id']}/cancel")).json()
            assert stopped["status"] == "cancelled"
            assert (await one.get(f"/responses/{running['id']}")).json() == stopped
            went_on = await create(two, input="More", previous_response_id=stopped["id"])
            assert went_on["status"] == "completed"
            # Deleted by one while the other makes it: it stays deleted.
            running = await create(one, input="Hi", background=True)
            assert (await two.delete(f"/responses/{running['id']}")).json()["deleted"] is True
            async with asyncio.timeout(60):
                while (await one.get(f"/responses/{running['id']}")).status_code != 404:
                    await asyncio.sleep(0.05)
            assert (await two.get(f"/responses/{running['id']}")).status_code == 404
        for store in stores:
            store.close()

    asyncio.run(run())


def test_a_response_whose_server_is_gone_has_failed(tmp_path: Path, conformance: Any) -> None:
    async def run() -> None:
        now = [1000.0]
        store = ResponseStore(tmp_path / "r.sqlite", clock=lambda: now[0])
        async with server(store=store) as (http, _):
            response = await create(http, input="Hi")
            orphan = {**response, "id": "resp_orphan", "status": "in_progress", "background": True}
            orphan |= {"completed_at": None, "output": [], "usage": None}
            await store.put(Record(response=orphan), lease=30)
            assert (await http.get("/responses/resp_orphan")).json()["status"] == "in_progress"
            now[0] += 31
            failed = (await http.get("/responses/resp_orphan")).json()
            assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
            conformance.response(failed)
            assert (await http.get("/responses/resp_orphan")).json() == failed
        store.close()

    asyncio.run(run())


def test_a_server_forgets_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptoss_serve.responses.service._SWEEP_SECONDS", 0.01)

    async def run() -> None:
        now = [0.0]
        store = ResponseStore(None, seconds_to_live=10, clock=lambda: now[0])
        async with server(store=store) as (http, _):
            await create(http, input="Hi")
            now[0] = 11
            async with asyncio.timeout(60):
                while await _count(store):
                    await asyncio.sleep(0.01)
        store.close()

    asyncio.run(run())


async def _count(store: ResponseStore) -> int:
    query = "SELECT (SELECT COUNT(*) FROM responses) + (SELECT COUNT(*) FROM items)"
    return int((await store._run(lambda db: db.execute(query).fetchone()))[0])


def test_an_overflow_is_named_wherever_it_shows() -> None:
    body = {"input": "word " * 400}

    async def run() -> None:
        async with server(context=300) as (http, _):
            for path, more in (("", {}), ("", {"stream": True}), ("/compact", {})):
                answer = await http.post(f"/responses{path}", json={**body, **more})
                error = answer.json()["error"]
                assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
                assert (error["type"], error["param"]) == ("invalid_request_error", "input")
            counted = await http.post("/responses/input_tokens", json=body)
            assert counted.json()["input_tokens"] > 400
            streamed = await http.post(
                "/responses", json={**body, "background": True, "stream": True}
            )
            events = _events(streamed.text)
            assert [e["type"].removeprefix("response.") for e in events] == [
                *("created", "queued", "failed")
            ]
            # Codex asks for this code, which OpenAI's own list of codes does not have.
            failed = events[-1]["response"]
            assert failed["error"]["code"] == "context_length_exceeded"
            assert (await http.get(f"/responses/{failed['id']}")).json() == failed

    asyncio.run(run())


class Breaking(ScriptedEngine):
    """Fails after some tokens."""

    def generate(self, *args: Any, **options: Any) -> Any:
        replay = super().generate(*args, **options)
        original = replay._output

        def output(tokens: Any) -> Any:
            if replay._position > 8:
                raise RuntimeError("the device is gone")
            return original(tokens)

        replay._output = output
        return replay


@pytest.mark.parametrize("background", [False, True])
def test_a_failure_half_way_is_an_event_and_is_kept(conformance: Any, background: bool) -> None:
    engine = Breaking(Recording([LONG]), ScriptedOptions(tokens_per_second=200))
    store = ResponseStore(None)

    async def run() -> None:
        transport = httpx.ASGITransport(create_app(engine, store=store))
        async with httpx.AsyncClient(transport=transport, base_url="http://test/v1") as http:
            body = {"input": "Hi", "stream": True, "background": background}
            failed = conformance.stream(_events((await http.post("/responses", json=body)).text))
            assert failed["error"]["code"] == "server_error"
            assert "device" not in failed["error"]["message"], "internals stay inside"
            assert failed["output"][0]["status"] == "incomplete"
            assert failed["output"][0]["content"][0]["text"].startswith("word")
            assert (await http.get(f"/responses/{failed['id']}")).json() == failed
            plain = await http.post("/responses", json={"input": "Hi"})
            assert plain.status_code in (200, 500)

    asyncio.run(run())
    engine.close()
    store.close()


class Full(ResponseStore):
    """A store whose disk is full when a response is complete."""

    async def put(self, record: Record, *, lease: float | None = None, owner: str = "") -> None:
        if record.response["status"] == "completed":
            raise OSError("no space left on device")
        await super().put(record, lease=lease, owner=owner)


def test_a_store_that_cannot_write_is_no_silent_loss(conformance: Any) -> None:
    async def run() -> None:
        store = Full(None)
        async with server(store=store) as (http, _):
            streamed = await http.post("/responses", json={"input": "Hi", "stream": True})
            failed = conformance.stream(_events(streamed.text))
            assert failed["status"] == "failed"
            assert (await http.get(f"/responses/{failed['id']}")).json() == failed
            unkept = await create(http, input="Hi", store=False)
            assert unkept["status"] == "completed"
        store.close()

    asyncio.run(run())
