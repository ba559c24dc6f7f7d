"""Write bytes that are no text, and commands to a terminal."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
os.write(1, b"HELD " + bytes(range(256)) + b"\\xff\\xfe")
"""


def test_output_bytes(attack: Callable[[str], Outcome]) -> None:
    outcome = attack(CODE)
    outcome.output.encode("utf-8")
