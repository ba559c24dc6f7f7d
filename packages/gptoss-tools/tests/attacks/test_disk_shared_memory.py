"""Fill /dev/shm."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
def fill():
    for number in range(64):
        with open(f"/dev/shm/{number}", "wb") as file:
            file.write(b"x" * (8 << 20))
    return "512 MiB"
attempt("write", fill)
"""


def test_disk_shared_memory(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
