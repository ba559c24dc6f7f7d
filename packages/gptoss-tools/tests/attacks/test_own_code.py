"""Change the code that a later call will run."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("write", lambda: open("/run/code/main.py", "a"))
attempt("replace", lambda: os.rename("/run/code/main.py", "/mnt/data/x") or "moved")
attempt("plant", lambda: open("/run/code/sitecustomize.py", "w"))
"""


def test_own_code(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
