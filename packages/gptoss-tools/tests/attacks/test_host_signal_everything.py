"""Kill everything that can be reached."""

import os
import subprocess
import sys
from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import signal
if os.fork() == 0:
    os.kill(-1, signal.SIGKILL)
    os._exit(0)
print("HELD")
"""


def test_host_signal_everything(attack: Callable[[str], Outcome]) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as victim:
        try:
            attack(CODE)
            assert victim.poll() is None
            assert os.getppid() > 0
        finally:
            victim.kill()
