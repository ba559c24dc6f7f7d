"""Send a datagram out of the jail."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt("sendto", lambda: s.sendto(b"x", ("1.1.1.1", 53)))
"""


def test_network_udp(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
