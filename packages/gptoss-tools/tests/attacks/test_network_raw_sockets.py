"""Open raw and packet sockets."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import socket
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
attempt("icmp", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
"""


def test_network_raw_sockets(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
