"""Write where nothing bounds the size: the root, /dev, /run, the system."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
for folder in ("/", "/dev", "/run", "/etc", "/usr", "/usr/lib", "/mnt", "/proc", "/var", "/opt"):
    attempt(folder, lambda: open(f"{folder}/planted", "w"))
"""


def test_disk_system_folders(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
