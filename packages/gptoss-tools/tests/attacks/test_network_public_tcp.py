"""Open a connection to the internet."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import socket
for address in (("1.1.1.1", 80), ("8.8.8.8", 53), ("2606:4700:4700::1111", 443)):
    attempt(address[0], lambda: socket.create_connection(address, 2))
"""


def test_network_public_tcp(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
