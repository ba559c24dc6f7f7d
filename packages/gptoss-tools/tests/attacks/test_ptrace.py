"""Trace the jail's first process."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("attach", lambda: libc.ptrace(16, 1, 0, 0) == 0 or None)
attempt("seize", lambda: libc.ptrace(0x4206, 1, 0, 0) == 0 or None)
"""


def test_ptrace(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
