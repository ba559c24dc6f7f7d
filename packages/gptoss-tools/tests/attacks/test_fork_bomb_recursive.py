"""Fork in every child again."""

import time
from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
print("HELD before", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


def test_fork_bomb_recursive(attack: Callable[[str], Outcome]) -> None:
    outcome = attack(CODE)
    assert outcome.stopped is not None
    # The machine is still able to start things.
    assert time.monotonic() > 0
