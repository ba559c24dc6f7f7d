"""Overwrite the jail's own launcher through /proc/self/exe."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("exe", lambda: os.open("/proc/self/exe", os.O_RDWR))
attempt("init exe", lambda: os.open("/proc/1/exe", os.O_RDWR))
attempt("init memory", lambda: os.open("/proc/1/mem", os.O_RDWR))
"""


def test_proc_self_exe(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
