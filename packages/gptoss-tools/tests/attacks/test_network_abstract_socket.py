"""Reach an abstract UNIX socket of the host, which has no path to hide."""

import os
import socket
from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import socket
s = socket.socket(socket.AF_UNIX)
attempt("connect", lambda: s.connect(chr(0) + NAME) or "connected")
"""


def test_network_abstract_socket(attack: Callable[[str], Outcome]) -> None:
    name = f"gptoss-attack-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        attack(f"NAME = {name!r}\n{CODE}")
