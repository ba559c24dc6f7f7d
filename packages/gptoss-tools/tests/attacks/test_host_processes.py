"""See or signal processes of the host."""

import subprocess
import sys
from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import signal
names = []
for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
    names.append(open(f"/proc/{pid}/cmdline").read())
attempt("command lines", lambda: any("pytest" in name for name in names) or None)
attempt("signal", lambda: os.kill(VICTIM, signal.SIGKILL) or "sent")
"""


def test_host_processes(attack: Callable[[str], Outcome]) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as victim:
        try:
            # A number in the jail's own space may exist; the host's must not be hit.
            code = CODE.replace("VICTIM", str(victim.pid))
            attack(code)
            assert victim.poll() is None
        finally:
            victim.kill()
