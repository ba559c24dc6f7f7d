"""Run before everything else."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("nice", lambda: os.nice(-5))
attempt("realtime", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)) or "set")
"""


def test_priority(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
