"""Kill everything that can be reached."""

import os
import subprocess
import sys
from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

# The words come first: what follows may well kill the program that would say them.
CODE = """
import signal
print("HELD", flush=True)
os.kill(-1, signal.SIGKILL)
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
