"""Look a name up."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import socket
attempt("getaddrinfo", lambda: socket.getaddrinfo("example.com", 80))
attempt("gethostbyname", lambda: socket.gethostbyname("one.one.one.one"))
"""


def test_network_names(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
