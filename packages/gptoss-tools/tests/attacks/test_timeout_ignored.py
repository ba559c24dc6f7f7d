"""Ignore every signal and run on."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
print("HELD before", flush=True)
while True:
    time.sleep(1)
"""


def test_timeout_ignored(attack: Callable[[str], Outcome]) -> None:
    outcome = attack(CODE)
    assert "timed out" in str(outcome.stopped)
