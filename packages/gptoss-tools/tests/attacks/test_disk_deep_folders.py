"""Nest folders until whoever walks them falls over."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome
from gptoss_tools.python.workspace import Workspace

CODE = """
print("HELD before", flush=True)
for number in range(2000):
    os.mkdir("d")
    os.chdir("d")
print("made", flush=True)
import time
time.sleep(1)
"""


def test_disk_deep_folders(attack: Callable[[str], Outcome], workspace: Workspace) -> None:
    outcome = attack(CODE)
    assert "nested" in str(outcome.stopped)
    workspace.close()
    assert not workspace.data.exists()
