"""Use the calls that kernel exploits start from."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("bpf", lambda: libc.syscall(321, 0, None, 0))
attempt("perf_event_open", lambda: libc.syscall(298, b"\\0" * 128, 0, -1, -1, 0))
attempt("userfaultfd", lambda: libc.syscall(323, 0))
attempt("open_by_handle_at", lambda: libc.syscall(304, 0, b"\\0" * 64, 0))
"""


def test_kernel_interfaces(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
