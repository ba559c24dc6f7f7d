"""Make a file that only claims to be large."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
def fill():
    with open("/mnt/data/sparse", "wb") as file:
        file.truncate(1 << 40)
    return "1 TiB"
attempt("truncate", fill)
"""


def test_disk_sparse_file(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
