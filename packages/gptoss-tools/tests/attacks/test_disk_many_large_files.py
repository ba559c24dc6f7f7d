"""Fill the disk with files that each stay below the bound."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome
from gptoss_tools.python.workspace import Workspace

CODE = """
import time
print("HELD before", flush=True)
for number in range(200):
    with open(f"/mnt/data/{number}", "wb") as file:
        file.write(b"x" * (8 << 20))
    time.sleep(0.02)
print("ESCAPED")
"""


def test_disk_many_large_files(attack: Callable[[str], Outcome], workspace: Workspace) -> None:
    outcome = attack(CODE)
    assert "MiB in /mnt/data" in str(outcome.stopped)
    assert workspace.usage(max_entries=1000)[0] == 0, "what the call wrote is removed"
