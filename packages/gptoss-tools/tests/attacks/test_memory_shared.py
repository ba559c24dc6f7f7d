"""Use shared memory, which no per-process bound counts."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import mmap
print("HELD before", flush=True)
kept = []
for number in range(1024):
    area = mmap.mmap(-1, 1 << 20)
    area.write(b"x" * (1 << 20))
    kept.append(area)
print("ESCAPED", len(kept))
"""


def test_memory_shared(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
