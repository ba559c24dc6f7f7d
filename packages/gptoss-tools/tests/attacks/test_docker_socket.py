"""Command the container engine."""

import os
from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import socket
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", HOST):
    def connect():
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        return "connected"
    attempt(path, connect)
"""


def test_docker_socket(attack: Callable[[str], Outcome]) -> None:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    attack(f"HOST = {host!r}\n{CODE}")
