"""Leave a process behind that outlives the call."""

import time
from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome
from gptoss_tools.python.workspace import Workspace

CODE = """
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(100):
            open("/mnt/data/alive", "w").write(str(number))
            time.sleep(0.1)
    os._exit(0)
print("HELD")
"""


def test_daemon(attack: Callable[[str], Outcome], workspace: Workspace) -> None:
    attack(CODE)
    file = workspace.data / "alive"
    before = file.read_text() if file.exists() else ""
    time.sleep(0.5)
    assert (file.read_text() if file.exists() else "") == before
