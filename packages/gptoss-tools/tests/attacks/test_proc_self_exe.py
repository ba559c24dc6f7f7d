"""Overwrite the jail's own launcher through /proc/self/exe."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("exe", lambda: os.open("/proc/self/exe", os.O_RDWR))
if os.getpid() == 1:
    os._exit(0)  # the jail has no other process to overwrite
attempt("init exe", lambda: os.open("/proc/1/exe", os.O_RDWR))
attempt("init memory", lambda: os.open("/proc/1/mem", os.O_RDWR))
"""


def test_proc_self_exe(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
