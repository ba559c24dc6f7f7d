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
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """The servers of a test, ended with it."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    end(started)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(30)


@pytest.fixture
def stop(processes: list[subprocess.Popen[bytes]]) -> Callable[[], None]:
    """Ends the servers now."""
    return lambda: end(processes)


@pytest.fixture
def serve(tmp_path: Path, processes: list[subprocess.Popen[bytes]]) -> Callable[..., int]:
    """Start `gptoss tool serve ...` and return its port."""

    def start(*arguments: str) -> int:
        port = free_port()
        command = [sys.executable, "-m", "gptoss_harmony.cli", "tool", "serve", *arguments]
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=tmp_path, env=os.environ.copy()
        )
        processes.append(process)
        wait_for(port, process)
        return port

    return start
