"""Read the kernel's key rings, which no namespace hides."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("keyctl", lambda: libc.syscall(250, 0, -4, 1))
attempt("add_key", lambda: libc.syscall(248, b"user", b"x", b"y", 1, -3))
attempt("request_key", lambda: libc.syscall(249, b"user", b"x", None, -3))
"""


def test_kernel_keys(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
