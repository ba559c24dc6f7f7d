"""Fork until nothing else runs."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import time
count = 0
try:
    while count < 5000:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        count += 1
except OSError as error:
    print("HELD after", count, error)
print("ESCAPED" if count > 64 else "HELD", count)
"""


def test_fork_bomb(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
