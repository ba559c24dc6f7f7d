"""Leave pipes and unreadable folders where the host counts files."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome
from gptoss_tools.python.workspace import Workspace

CODE = """
os.mkfifo("/mnt/data/pipe")
os.mkdir("/mnt/data/closed")
open("/mnt/data/closed/file", "w").close()
os.chmod("/mnt/data/closed", 0)
print("HELD")
"""


def test_special_files_for_the_counter(
    attack: Callable[[str], Outcome], workspace: Workspace
) -> None:
    attack(CODE)
    assert workspace.usage(max_entries=1000)[1] >= 2
    workspace.close()
    assert not workspace.data.exists()
