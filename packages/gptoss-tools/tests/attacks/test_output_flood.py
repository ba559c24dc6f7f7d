"""Write output without end."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
print("HELD before", flush=True)
while True:
    os.write(1, b"x" * 65536)
"""


def test_output_flood(attack: Callable[[str], Outcome]) -> None:
    outcome = attack(CODE)
    assert "bytes of output" in str(outcome.stopped)
    assert len(outcome.output) < 30_000
