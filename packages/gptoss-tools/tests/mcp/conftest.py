"""A real server process on a free port."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not listen")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Start `gptoss tool serve ...` and return its port."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> int:
        port = free_port()
        command = [sys.executable, "-m", "gptoss_harmony.cli", "tool", "serve", *arguments]
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=tmp_path, env=os.environ.copy()
        )
        processes.append(process)
        wait_for(port, process)
        return port

    yield start
    for process in processes:
        process.terminate()
        process.wait(10)
