"""Reach a server on the host's loopback."""

import socket
from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import socket
attempt("connect", lambda: socket.create_connection(("127.0.0.1", PORT), 2))
"""


def test_network_loopback_of_the_host(attack: Callable[[str], Outcome]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        attack(f"PORT = {server.getsockname()[1]}\n{CODE}")
        server.setblocking(False)
        try:
            server.accept()
        except BlockingIOError:
            return
        raise AssertionError("the jail connected to the host")
