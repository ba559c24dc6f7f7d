"""Fill the disk through mappings of files that are neither named nor open."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import mmap
import time
print("HELD before", flush=True)
held = []
for number in range(10):
    with open(f"/mnt/data/{number}", "w+b") as file:
        os.unlink(f"/mnt/data/{number}")
        file.truncate(8 << 20)
        held.append(mmap.mmap(file.fileno(), 8 << 20))
    held[-1][:] = b"x" * (8 << 20)
    time.sleep(0.05)
time.sleep(1)
print("ESCAPED")
"""


def test_disk_mapped_files_without_names(attack: Callable[[str], Outcome]) -> None:
    assert "MiB in /mnt/data" in str(attack(CODE).stopped)
