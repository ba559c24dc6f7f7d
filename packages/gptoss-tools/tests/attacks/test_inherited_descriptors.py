"""Use a file that the host process has open."""

import os
from collections.abc import Callable
from pathlib import Path

from gptoss_tools.python.sandbox import Outcome

CODE = """
for name in os.listdir("/proc/self/fd"):
    def look():
        target = os.readlink(f"/proc/self/fd/{name}")
        return target if "secret" in target else None
    attempt(name, look)
attempt("count", lambda: len(os.listdir("/proc/self/fd")) > 4 or None)
"""


def test_inherited_descriptors(attack: Callable[[str], Outcome], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret of the host")
    descriptor = os.open(secret, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        attack(CODE)
    finally:
        os.close(descriptor)
