"""Grow until the machine swaps."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
print("HELD before", flush=True)
kept = []
while True:
    kept.append(bytearray(1 << 20))
    if len(kept) > 1024:
        print("ESCAPED", flush=True)
        break
"""


def test_memory_bit_by_bit(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
