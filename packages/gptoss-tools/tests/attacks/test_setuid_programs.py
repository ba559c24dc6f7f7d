"""Become root through programs that have the set-user-id bit."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import subprocess
for command in (["su", "-c", "id"], ["mount", "-t", "tmpfs", "x", "/mnt"], ["passwd", "root"]):
    def run():
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=5)
        return done.returncode == 0 or None
    attempt(command[0], run)
"""


def test_setuid_programs(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
