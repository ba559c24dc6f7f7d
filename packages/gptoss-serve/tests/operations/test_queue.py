"""The queue over HTTP: keys take turns, a full queue says when to come back, metrics show it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow
Launch = Callable[..., Any]

LONG = {"when": "long", "text": "<|channel|>final<|message|>" + "word " * 60_000 + "<|return|>"}
SHORT = "<|channel|>final<|message|>Hello.<|return|>"


def test_a_greedy_key_makes_room_for_another(launch: Launch) -> None:
    flags = ("--api-key", "greedy", "--api-key", "modest", "--context", "200000")
    flags += ("--tokens-per-second", "20", "--max-running", "1", "--max-waiting", "3")
    server = launch(*flags, replies=[LONG, SHORT])
    server.http.headers["authorization"] = "Bearer greedy"

    def ask(key: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        body = {"input": "Hi", "max_output_tokens": 5}
        return httpx.post(f"{server.url}/v1/responses", json=body, headers=headers, timeout=120)

    with ThreadPoolExecutor(8) as pool:
        body = {"input": "long", "stream": True}
        with server.http.stream("POST", "/v1/responses", json=body) as answer:
            lines = answer.iter_lines()  # closed when nobody has it any more
            next(line for line in lines if "output_text.delta" in line)
            greedy = [pool.submit(ask, "greedy") for _ in range(3)]
            server.wait_for(lambda: server.gauge("gptoss_answers_waiting") == 3, "three wait")
            assert server.gauge("gptoss_clients_waiting") == 1
            modest = pool.submit(ask, "modest")
            server.wait_for(lambda: server.gauge("gptoss_clients_waiting") == 2, "both wait")
            assert server.gauge("gptoss_answers_waiting") == 3
            full = ask("greedy")  # the queue is full of its own requests
        done = [future.result() for future in greedy]
        assert modest.result().status_code == 200
    refused = [*(one for one in done if one.status_code != 200), full]
    assert [one.status_code for one in refused] == [429, 429]
    for one in refused:
        assert int(one.headers["retry-after"]) > 0
        assert one.json()["error"]["code"] == "rate_limit_exceeded"
    assert {line["client"] for line in server.lines} == {"key-1", "key-2"}
    assert ask("nobody").status_code == 401
    assert "greedy" not in server.log, "no key is in the log"
