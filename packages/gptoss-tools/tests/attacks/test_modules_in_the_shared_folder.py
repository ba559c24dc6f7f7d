"""Plant modules where the next call starts."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
for name in ("os", "json", "sitecustomize", "usercustomize", "encodings"):
    open(f"/mnt/data/{name}.py", "w").write("print('ESCAPED')")
print("HELD")
"""


def test_modules_in_the_shared_folder(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
    attack("import json, sys\nprint('HELD')")
