"""Load code into the kernel, or another kernel."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("init_module", lambda: libc.syscall(175, b"x", 1, b""))
attempt("finit_module", lambda: libc.syscall(313, 0, b"", 0))
attempt("kexec_load", lambda: libc.syscall(246, 0, 0, None, 0))
attempt("reboot", lambda: libc.syscall(169, 0xFEE1DEAD, 672274793, 0x89ABCDEF, None))
attempt("swapoff", lambda: libc.syscall(168, b"/swap"))
"""


def test_kernel_modules(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
