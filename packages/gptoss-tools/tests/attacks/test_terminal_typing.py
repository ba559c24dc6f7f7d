"""Type into the host's terminal."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import fcntl
for descriptor in (0, 1, 2):
    attempt(str(descriptor), lambda: fcntl.ioctl(descriptor, 0x5412, b"x"))
def own():
    tty = os.open("/dev/tty", os.O_RDWR)
    return fcntl.ioctl(tty, 0x5412, b"x")
attempt("tty", own)
"""


def test_terminal_typing(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
