"""Connections that nobody means well with: bounded, answered or closed, and never a traceback."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

LONG = "<|channel|>final<|message|>" + "word " * 60_000 + "<|return|>"
HELLO = "<|channel|>final<|message|>Hello there.<|return|>"
ASK = b'{"input": "long", "stream": true, "store": false}'
HEAD = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
REQUEST = HEAD % len(ASK) + ASK

Launch = Callable[..., Any]
pytestmark = pytest.mark.slow
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, process: Any) -> Iterator[Any]:
    """Answers `long` for a minute, and is not patient."""
    replies = [{"when": "long", "text": LONG}, HELLO]
    flags = ("--tokens-per-second", "1000", "--client-seconds", "4", "--context", "1000000")
    server = process(tmp_path_factory.mktemp("slow"), *flags, replies=replies)
    yield server
    server.stop()


def read_until(plug: socket.socket, what: bytes) -> bytes:
    seen = b""
    while what not in seen:
        part = plug.recv(65536)
        assert part, seen[-500:]
        seen += part
    return seen


def running(server: Any) -> float:
    return float(server.gauge("gptoss_engine_running"))


@linux
def test_readers_that_stop_reading_are_dropped_and_cost_little(launch: Launch) -> None:
    replies = [{"when": "long", "text": LONG.replace("word ", "word word ")}, HELLO]
    server = launch("--client-seconds", "4", "--context", "1000000", replies=replies)
    before = server.resident_mib()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            plug = stack.enter_context(socket.socket())
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plug.connect(("127.0.0.1", server.port))
            plug.sendall(REQUEST)
        server.wait_for(lambda: len(done(server)) == 4, "all are dropped")
        assert running(server) == 0
    generated = server.gauge("gptoss_engine_generated_tokens")
    assert generated < 4 * 120_000, "the engine went on for nobody"
    assert server.resident_mib() - before < 100
    server.is_well()


def done(server: Any) -> list[int]:
    """The statuses of the answers that are over."""
    return [line["status"] for line in server.lines if line["path"] == "/v1/responses"]


def test_a_client_that_leaves_stops_its_answer(slow: Any) -> None:
    before = slow.gauge("gptoss_engine_generated_tokens")
    for leave in (socket.socket.close, reset):
        with slow.connect() as plug:
            plug.sendall(REQUEST)
            read_until(plug, b"output_text.delta")
            leave(plug)
        slow.wait_for(lambda: running(slow) == 0, "it is cancelled")
    assert slow.gauge("gptoss_engine_generated_tokens") - before < 60_000
    slow.is_well()


def reset(plug: socket.socket) -> None:
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plug.close()


def test_a_client_that_leaves_before_a_plain_answer(slow: Any) -> None:
    body = b'{"input": "long", "store": false}'
    with slow.connect() as plug:
        plug.sendall(HEAD % len(body) + body)
        slow.wait_for(lambda: running(slow) == 1, "it runs")
        reset(plug)
    slow.wait_for(lambda: running(slow) == 0, "it is cancelled")
    slow.wait_for(lambda: 499 in done(slow), "it is noted")
    slow.is_well()


def test_a_half_closed_socket_is_answered_or_closed(slow: Any) -> None:
    for request in (REQUEST, REQUEST[:-10], REQUEST[:30], b"", b"GET /health HTTP/1.1\r\n"):
        with slow.connect() as plug:
            plug.sendall(request)
            plug.shutdown(socket.SHUT_WR)
            everything(plug)  # hangs, and fails by the socket's time limit, if it is held
    slow.wait_for(lambda: running(slow) == 0, "nothing runs on")
    slow.is_well()


SLOW = {
    "nothing": b"",
    "half a line": b"POST /v1/resp",
    "half the headers": b"POST /v1/responses HTTP/1.1\r\nhost: x\r\nx-a: b\r\n",
    "half the body": HEAD % 1000 + b'{"input": "',
    "no chunk": b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
    "a second request": b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /health HTTP/1.1\r\nho",
}


def test_whoever_dawdles_is_shown_out(slow: Any) -> None:
    with contextlib.ExitStack() as stack:
        plugs = {name: stack.enter_context(slow.connect()) for name in SLOW}
        for name, plug in plugs.items():
            plug.sendall(SLOW[name])
        silent = [stack.enter_context(slow.connect()) for _ in range(200)]
        drip(slow)
        seen = {name: everything(plug) for name, plug in plugs.items()}
        assert all(not everything(plug) for plug in silent)
    for name in ("half the body", "no chunk"):
        assert seen[name].startswith(b"HTTP/1.1 408"), seen
        error = json.loads(seen[name].partition(b"\r\n\r\n")[2])["error"]
        assert error["code"] == "request_timeout"
    slow.is_well()


def drip(server: Any) -> None:
    """Send a header byte by byte until the server has had enough."""
    with server.connect() as plug:
        plug.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ")
        plug.settimeout(0.2)
        for _ in range(600):  # two minutes at most; it is over after some seconds
            try:
                plug.sendall(b"a")
                assert not plug.recv(100)
                return
            except TimeoutError:
                continue
            except ConnectionError:
                return
        pytest.fail("the connection was held")


def everything(plug: socket.socket) -> bytes:
    """Read to the end of a connection, however it ends."""
    parts: list[bytes] = []
    with contextlib.suppress(ConnectionError):
        while part := plug.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


FLOODS = {
    "many headers": b"".join(b"x-%d: y\r\n" % i for i in range(100_000)),
    "a long header": b"x: " + b"y" * 2_000_000 + b"\r\n",
    "one name": b"x: y\r\n" * 100_000,
    "two lengths": b"content-length: 1\r\ncontent-length: 2\r\n",
    "a NUL": b"x: a\x00b\r\n",
    "a bare return": b"x: a\rb\r\n",
    "no name": b": a\r\n",
    "Latin": b"authorization: Bearer \xff\xfe\r\nx-request-id: \xe4\r\n",
    "an upgrade": b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
}


@pytest.mark.parametrize("name", FLOODS)
def test_odd_headers_are_answered_or_closed(victim: Any, name: str) -> None:
    start = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    answer = victim.say(start + FLOODS[name] + b"\r\n")
    assert not answer or answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4")), answer[:300]
    victim.is_well()


LINES = (
    b"GET / HTTP/9.9",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1",
    b"GET /%00%ff%c0%af/../../etc/passwd HTTP/1.1",
    b"GET /v1/responses/%00 HTTP/1.1",
    b"GET /v1/responses/%ed%a0%80?stream=true HTTP/1.1",
    b"GET /v1/responses/x?stream=true&starting_after=" + b"9" * 5000 + b" HTTP/1.1",
    b"GET /v1/responses/x/input_items?limit=" + b"9" * 5000 + b" HTTP/1.1",
    b"GET /v1/models/" + b"%2e%2e/" * 1000 + b" HTTP/1.1",
    b"BREW /v1/responses HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0",
    b"\x00" * 1000,
    b"OPTIONS * HTTP/1.1",
    b"GET http://elsewhere/health HTTP/1.1",
)


@pytest.mark.parametrize("number", range(len(LINES)))
def test_odd_request_lines_are_answered_or_closed(victim: Any, number: int) -> None:
    answer = victim.say(LINES[number] + b"\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert not answer or answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4")), answer[:300]
    victim.is_well()


CHUNKED = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "rest", [b"zz\r\n", b"-1\r\n", b"f" * 50 + b"\r\n", b"2\r\n{}xx\r\n", b"1;" + b"e" * 90_000]
)
def test_broken_chunks_are_answered_or_closed(victim: Any, rest: bytes) -> None:
    answer = victim.say(CHUNKED + rest)
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:300]
    victim.is_well()


def test_rubbish_after_the_answer_has_begun(slow: Any) -> None:
    head = REQUEST.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n", 1)
    for after in (b"\x00garbage\r\n\r\n", REQUEST * 3, b"GET / HTTP/1.1\r\n" * 5000):
        with slow.connect() as plug:
            plug.sendall(head)
            read_until(plug, b"output_text.delta")
            with contextlib.suppress(OSError):
                plug.settimeout(5)
                plug.sendall(after)
                read_until(plug, b"word")
    slow.wait_for(lambda: running(slow) == 0, "nothing runs on")
    slow.is_well()
