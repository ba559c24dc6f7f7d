"""A real server in a process of its own, and sockets to abuse it with."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

COMMAND = "from gptoss_harmony.cli import main; raise SystemExit(main())"
SHORT = "<|channel|>final<|message|>Hello there.<|return|>"
PATIENCE = 120.0  # of the tests, on a busy machine


class Process:
    """`gptoss serve` over the scripted engine; what it says is kept."""

    def __init__(self, folder: Path, *flags: str, replies: list[Any] | None = None) -> None:
        script = folder / "script.json"
        script.write_text(json.dumps({"replies": replies or [SHORT]}), encoding="utf-8")
        command = [sys.executable, "-W", "error", "-c", COMMAND, "serve", "--port", "0"]
        command += ["--checkpoint", str(script), "--inference-backend", "scripted"]
        command += ["--store", "memory", *flags]
        self.said: list[str] = []
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._address = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._address.wait(PATIENCE), self.log
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(
            base_url=self.url, timeout=PATIENCE, headers={"connection": "close"}
        )

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line)
            if found := re.search(r"serving on http://127\.0\.0\.1:(\d+)/v1", line):
                self.port = int(found[1])
                self._address.set()
        self._process.stderr.close()

    @property
    def log(self) -> str:
        return "".join(self.said)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in list(self.said) if line.startswith("{")]

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def resident_mib(self) -> float:
        """Memory held now (Linux)."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096 / 2**20

    def connect(self) -> socket.socket:
        """A socket to the server."""
        plug = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plug

    def say(self, raw: bytes) -> bytes:
        """Send bytes and read until the server closes or has nothing to add."""
        with self.connect() as plug:
            with contextlib.suppress(OSError):  # it may hang up before it has heard everything
                plug.sendall(raw)
            return everything(plug)

    def post(self, path: str, body: bytes, *headers: bytes) -> bytes:
        """Send a body as it is, and read the answer."""
        lines = [b"POST %b HTTP/1.1" % path.encode(), b"host: x", b"connection: close"]
        lines += [b"content-length: %d" % len(body), *headers]
        return self.say(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def gauge(self, name: str) -> float:
        """A number of `/metrics`."""
        text = self.http.get("/metrics").text
        found = re.search(rf"(?m)^{name} (\S+)$", text)
        assert found, text
        return float(found[1])

    def wait_for(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, (
                f"{what}: not within {PATIENCE} s\n{self.log[-4000:]}"
            )
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; everything it said is there then."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def is_well(self) -> None:
        """It answers as ever, and nothing in its log says that something went wrong."""
        answer = self.http.post("/v1/responses", json={"input": "Hi", "max_output_tokens": 20})
        assert answer.status_code == 200, answer.text
        assert self.is_running
        assert "Traceback" not in self.log, self.log[-6000:]
        assert not [line for line in self.lines if line["status"] == 500]

    def stop(self) -> None:
        self.http.close()
        if self.is_running:
            self.signal(signal.SIGKILL)
        self.wait()


def everything(plug: socket.socket) -> bytes:
    """Read to the end of a connection, however it ends."""
    parts: list[bytes] = []
    with contextlib.suppress(ConnectionError):
        while part := plug.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


@pytest.fixture(scope="session")
def process() -> type[Process]:
    return Process


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start servers as processes, with flags and `replies`."""
    with contextlib.ExitStack() as stack:

        def start(*flags: str, replies: list[Any] | None = None) -> Process:
            process = Process(tmp_path, *flags, replies=replies)
            stack.callback(process.stop)
            return process

        yield start


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One server for all the abuse: what breaks it breaks the tests after."""
    folder = tmp_path_factory.mktemp("victim")
    process = Process(folder, "--max-body-bytes", "2000000", "--max-running", "8")
    yield process
    process.stop()
