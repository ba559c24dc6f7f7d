"""`gptoss serve` as a process of its own over nano, for clients that are the real ones too."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gptoss_harmony.testing import require

SECONDS_TO_START = 240


class ServeProcess:
    """A running `gptoss serve`.

    Args:
        log: where it writes.
        flags: what it is told beside `--port 0`.
        within: a command that it is the last argument of.
    """

    def __init__(self, log: Path, *flags: str, within: Sequence[str] = ()) -> None:
        self._log = log
        command = "from gptoss_harmony.cli import main; raise SystemExit(main())"
        program = [sys.executable, "-c", command, "serve", "--port", "0"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*within, *program, "--store", "memory", "--quiet", *flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid
        self.url = self._address()

    def _address(self) -> str:
        end = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < end and self._process.poll() is None:
            if found := re.search(r"serving on (http://\S+)/v1", self._log.read_text()):
                return found[1]
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"gptoss serve did not start: {self._log.read_text()}")

    @property
    def base(self) -> str:
        """What clients call the base URL."""
        return f"{self.url}/v1"

    def stop(self) -> int:
        """Ask it to stop as an operator does; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def check_and_stop(self) -> None:
        """It must stop when asked, and must have failed at nothing."""
        code = self.stop()
        log = self._log.read_text()
        assert code == 0, log
        assert "Traceback" not in log, log


class NanoServer(ServeProcess):
    """One whose every answer is sampled by a real model."""

    model = "nano"
    key = "secret-key"

    def __init__(self, log: Path) -> None:
        checkpoint = ("--checkpoint", self.model, "--inference-backend", "torch")
        super().__init__(log, *checkpoint, "--api-key", self.key)


@pytest.fixture
def serve_process(tmp_path: Path) -> Iterator[Callable[..., ServeProcess]]:
    """Start servers in processes of their own; each must have failed at nothing in the end."""
    with contextlib.ExitStack() as stack:

        def start(*flags: str, within: Sequence[str] = ()) -> ServeProcess:
            server = ServeProcess(tmp_path / "serve.log", *flags, within=within)
            stack.callback(server.check_and_stop)
            return server

        yield start


@pytest.fixture(scope="session")
def nano() -> Iterator[NanoServer]:
    """One server for all tests."""
    found = all(importlib.util.find_spec(name) for name in ("gptoss_core", "gptoss_nano"))
    require(found, "gptoss-core and gptoss-nano are not installed")
    with tempfile.TemporaryDirectory() as folder:
        server = NanoServer(Path(folder) / "log")
        yield server
        server.check_and_stop()


WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "Look up the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="session")
def weather() -> dict[str, Any]:
    """A function as Chat Completions nests it and the Responses API flattens it."""
    return WEATHER
