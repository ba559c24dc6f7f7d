"""Keys, limits, request ids, metrics and the drain."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gptoss_harmony.errors import UsageError
from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions
from gptoss_serve import ServerSettings
from gptoss_serve.errors import Overloaded, RateLimited
from gptoss_serve.limits import Admission

Serve = Callable[..., Any]


def test_models_health_version_metrics(serve: Serve) -> None:
    server = serve(aliases=["gpt-oss-20b"])
    with httpx.Client(base_url=server.url) as http:
        listed = http.get("/v1/models").json()
        names = [model["id"] for model in listed["data"]]
        assert names[0] == "scripted"
        assert {"gpt-oss-20b", "gpt-oss:20b", "openai/gpt-oss-20b"} <= set(names)
        assert http.get("/v1/models/openai/gpt-oss-20b").json()["max_model_len"] == 131_072
        assert http.get("/v1/models/other").json()["error"]["code"] == "model_not_found"
        assert http.get("/health").json() == {"status": "ok"}
        assert http.get("/version").json()["version"]
        http.post("/v1/responses", json={"input": "Hi"})
        text = http.get("/metrics").text
        assert 'gptoss_requests_total{route="/v1/responses",status="200"} 1' in text
        assert "gptoss_engine_generated_tokens 17" in text
        assert http.get("/openapi.json").json()["paths"]["/v1/responses"]["post"]["requestBody"]


def test_keys_are_asked_for_except_for_health(serve: Serve) -> None:
    server = serve(settings=ServerSettings(keys=("secret",), drain_seconds=1))
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            refused = http.get("/v1/models", headers=headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
        right = {"authorization": "Bearer secret"}
        assert http.get("/v1/models", headers=right).status_code == 200


def test_big_bodies_and_request_ids(serve: Serve) -> None:
    server = serve(settings=ServerSettings(max_body_bytes=1000, drain_seconds=1))
    with httpx.Client(base_url=server.url) as http:
        body = b'{"input": "' + b"x" * 2000 + b'"}'
        assert http.post("/v1/responses", content=body).status_code == 413
        chunks = (body[i : i + 100] for i in range(0, len(body), 100))
        assert http.post("/v1/responses", content=chunks).status_code == 413
        given = http.get("/health", headers={"x-request-id": "abc-1"})
        assert given.headers["x-request-id"] == "abc-1"
        assert http.get("/health").headers["x-request-id"].startswith("req_")


def test_no_cors_unless_told(serve: Serve) -> None:
    origin = {"origin": "http://page.example"}
    for origins, expected in (((), None), (("http://page.example",), "http://page.example")):
        server = serve(settings=ServerSettings(origins=origins, drain_seconds=1))
        with httpx.Client(base_url=server.url) as http:
            answer = http.get("/v1/models", headers=origin)
            assert answer.headers.get("access-control-allow-origin") == expected


def test_a_page_may_read_why_it_was_refused(serve: Serve) -> None:
    origin = {"origin": "http://page.example"}
    settings = ServerSettings(origins=("http://page.example",), keys=("k",), drain_seconds=1)
    server = serve(settings=settings)
    answer = httpx.get(f"{server.url}/v1/models", headers=origin)
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "http://page.example"
    assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()


def test_silence_is_filled_with_comments(serve: Serve) -> None:
    engine = ScriptedEngine(
        Recording(["<|channel|>final<|message|>one two three<|return|>"]),
        ScriptedOptions(tokens_per_second=4),
    )
    server = serve(engine=engine, settings=ServerSettings(keep_alive_seconds=0.02, drain_seconds=1))
    for path, body in (
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    ):
        answer = httpx.post(f"{server.url}{path}", json={**body, "stream": True}, timeout=60)
        blocks = answer.text.split("\n\n")
        assert ": keep-alive" in blocks[1:-2]
        assert blocks[-2:] == ["data: [DONE]", ""]
        assert not [b for b in blocks if "keep-alive" in b and b != ": keep-alive"]


def test_a_full_queue_says_come_back() -> None:
    async def run() -> None:
        admission = Admission(running=1, waiting=1)
        order: list[int] = []

        async def work(number: int) -> None:
            async with admission.slot():
                order.append(number)
                await asyncio.sleep(0.01)

        first = asyncio.create_task(work(1))
        second = asyncio.create_task(work(2))
        await asyncio.sleep(0)
        with pytest.raises(RateLimited):
            await work(3)
        draining = asyncio.create_task(admission.drain(5))
        await asyncio.gather(first, second)
        assert await draining
        assert order == [1, 2]
        with pytest.raises(Overloaded):
            await work(4)

    asyncio.run(run())


def test_a_shutdown_lets_running_answers_finish(serve: Serve) -> None:
    long = "<|channel|>final<|message|>" + "word " * 30 + "<|return|>"
    engine = ScriptedEngine(Recording([long]), ScriptedOptions(tokens_per_second=30))
    server = serve(engine=engine)
    answers: list[Any] = []

    def ask() -> None:
        url = f"{server.url}/v1/responses"
        answers.append(httpx.post(url, json={"input": "Hi"}, timeout=30).json())

    thread = threading.Thread(target=ask)
    thread.start()
    while engine.stats().running == 0:
        assert thread.is_alive(), answers
        time.sleep(0.01)
    server.stop()
    thread.join(20)
    assert answers[0]["status"] == "completed"


@pytest.mark.parametrize("key", ["", " ", "two words", "line\n", "schl\u00fcssel"])
def test_a_key_that_nobody_can_send_is_refused(key: str) -> None:
    # An empty one would let in whoever sends an empty one.
    with pytest.raises(UsageError, match="--api-key"):
        ServerSettings(keys=("good", key))
