"""Plant a module for the next Python that starts."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import sys
folders = {*filter(None, sys.path), sys.prefix, os.path.dirname(os.__file__), "/usr/lib/python3"}
for folder in folders:
    attempt(folder, lambda: open(os.path.join(folder, "sitecustomize.py"), "w"))
"""


def test_interpreter(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
