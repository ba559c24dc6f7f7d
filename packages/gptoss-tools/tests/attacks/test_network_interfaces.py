"""Make or raise a network interface."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
request = struct.pack("16sH14s", b"lo", 0, b"")
attempt("lower lo", lambda: fcntl.ioctl(s, 0x8914, request))
attempt("tun", lambda: os.open("/dev/net/tun", os.O_RDWR))
print("HELD")
"""


def test_network_interfaces(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
