"""Fill the disk with files that are open but have no name any more."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import time
print("HELD before", flush=True)
held = []
for number in range(10):
    held.append(open(f"/mnt/data/{number}", "wb"))
    os.unlink(f"/mnt/data/{number}")
    held[-1].write(b"x" * (8 << 20))
    held[-1].flush()
    time.sleep(0.05)
time.sleep(1)
print("ESCAPED")
"""


def test_disk_files_without_names(attack: Callable[[str], Outcome]) -> None:
    assert "MiB in /mnt/data" in str(attack(CODE).stopped)
