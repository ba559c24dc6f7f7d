"""Set the machine's clock or its name."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import time
attempt("settime", lambda: time.clock_settime(time.CLOCK_REALTIME, 0) or "set")
attempt("hostname", lambda: libc.sethostname(b"x", 1) == 0 or None)
"""


def test_clock(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
