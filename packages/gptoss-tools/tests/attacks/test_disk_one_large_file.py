"""Fill the disk with one file."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome
from gptoss_tools.python.workspace import Workspace

CODE = """
def fill():
    with open("/mnt/data/large", "wb") as file:
        for _ in range(400):
            file.write(b"x" * (1 << 20))
    return "400 MiB"
attempt("write", fill)
"""


def test_disk_one_large_file(attack: Callable[[str], Outcome], workspace: Workspace) -> None:
    attack(CODE)
    size, _ = workspace.usage(max_entries=1000)
    assert size <= 32 << 20
