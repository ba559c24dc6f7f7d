"""`gptoss serve` as a process of its own over nano, for clients that are the real ones too."""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptoss_harmony.testing import require

SECONDS_TO_START = 240


class NanoServer:
    """A running `gptoss serve --checkpoint nano`; every answer is sampled by a real model."""

    model = "nano"
    key = "secret-key"

    def __init__(self, log: Path) -> None:
        self._log = log
        command = "from gptoss_harmony.cli import main; raise SystemExit(main())"
        arguments = ["--checkpoint", self.model, "--inference-backend", "torch", "--port", "0"]
        arguments += ["--store", "memory", "--api-key", self.key, "--quiet"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", command, "serve", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
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

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text()


@pytest.fixture(scope="session")
def nano() -> Iterator[NanoServer]:
    """One server for all tests; it must have failed at nothing and stop when asked."""
    found = all(importlib.util.find_spec(name) for name in ("gptoss_core", "gptoss_nano"))
    require(found, "gptoss-core and gptoss-nano are not installed")
    with tempfile.TemporaryDirectory() as folder:
        server = NanoServer(Path(folder) / "log")
        yield server
        code = server.stop()
        assert code == 0, server.log
        assert "Traceback" not in server.log, server.log


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
