"""Write one line that is too long to keep."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
print("HELD" + "y" * (3 << 20))
"""


def test_output_long_line(attack: Callable[[str], Outcome]) -> None:
    outcome = attack(CODE)
    assert len(outcome.output) < 21_000
    assert "characters cut" in outcome.output
