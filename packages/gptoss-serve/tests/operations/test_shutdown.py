"""How it ends: streams finish, newcomers get 503, time runs out, and a second signal is final."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX"),
]
Launch = Callable[..., Any]


def reply(words: int) -> str:
    return "<|channel|>final<|message|>" + "word " * words + "<|return|>"


def deltas(answer: httpx.Response) -> Iterator[str]:
    return (line for line in answer.iter_lines() if "output_text.delta" in line)


def streaming(server: Any) -> Any:
    body = {"input": "Hi", "stream": True}
    return server.http.stream("POST", "/v1/responses", json=body)


def test_running_streams_finish_and_newcomers_are_told_to_come_back(launch: Launch) -> None:
    server = launch("--tokens-per-second", "30", replies=[reply(120)])
    with streaming(server) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if "output_text.delta" in line)
        server.signal(signal.SIGTERM)
        server.wait_for(lambda: server.http.get("/health").status_code == 503, "health says so")
        assert server.http.get("/health").json() == {"status": "draining"}
        refused = server.http.post("/v1/responses", json={"input": "Hi"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "server_is_overloaded"
        rest = list(lines)
    assert [line for line in rest if "response.completed" in line]
    assert rest[-2:] == ["data: [DONE]", ""]
    assert server.wait() == 0
    assert "Traceback" not in server.log


def test_the_drain_is_bounded(launch: Launch) -> None:
    server = launch("--tokens-per-second", "10", "--drain-seconds", "1", replies=[reply(20_000)])
    with streaming(server) as answer:
        words = deltas(answer)
        next(words)
        server.signal(signal.SIGTERM)
        with pytest.raises(httpx.TransportError):
            list(words)
    assert server.wait() == 0
    assert "Traceback" not in server.log


def test_the_second_signal_ends_at_once(launch: Launch) -> None:
    server = launch("--tokens-per-second", "10", "--drain-seconds", "500", replies=[reply(20_000)])
    with streaming(server) as answer:
        words = deltas(answer)
        next(words)
        server.signal(signal.SIGTERM)
        server.wait_for(lambda: server.http.get("/health").status_code == 503, "it drains")
        server.signal(signal.SIGTERM)
        with pytest.raises(httpx.TransportError):
            list(words)
    assert server.wait() in (0, 1)
    assert "Traceback" not in server.log


def test_a_silent_connection_does_not_hold_up_the_end(launch: Launch) -> None:
    server = launch()
    with server.connect() as plug:
        plug.sendall(b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-le")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "Traceback" not in server.log
