"""Spread the memory over children that each stay below the bound."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import time
print("HELD before", flush=True)
for number in range(12):
    if os.fork() == 0:
        kept = bytearray(100 << 20)
        for index in range(0, len(kept), 4096):
            kept[index] = 1
        time.sleep(8)
        os._exit(0)
alive = 0
for number in range(12):
    _, status = os.wait()
    alive += status == 0
print("ESCAPED" if alive > 4 else "HELD", alive)
"""


def test_memory_of_many_children(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
