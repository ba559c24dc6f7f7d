"""Make a set-user-id program in the shared folder."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome
from gptoss_tools.python.workspace import Workspace

CODE = """
import shutil, stat
shutil.copy("/bin/true", "/mnt/data/true")
os.chmod("/mnt/data/true", 0o6755)
print("HELD")
"""


def test_setuid_own_program(attack: Callable[[str], Outcome], workspace: Workspace) -> None:
    attack(CODE)
    status = (workspace.data / "true").stat()
    assert status.st_uid != 0, "a root-owned set-user-id program on the host"
    assert status.st_uid == workspace.user
