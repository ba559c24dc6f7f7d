"""Ask for more memory than there is."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("bytearray", lambda: len(bytearray(4 << 30)))
"""


def test_memory_at_once(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
