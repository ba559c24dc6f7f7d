"""Talk to the hypervisor: vsock ignores network namespaces."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import socket
def connect():
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    s.settimeout(2)
    s.connect((2, 22))
    return "connected"
attempt("vsock", connect)
"""


def test_network_vsock(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
