"""Lead whoever counts or removes files out of the shared folder."""

from collections.abc import Callable
from pathlib import Path

from gptoss_tools.python.sandbox import Outcome
from gptoss_tools.python.workspace import Workspace

CODE = """
os.symlink("/", "/mnt/data/all")
os.symlink(TARGET, "/mnt/data/folder")
print("HELD")
"""


def test_symlink_for_the_counter(
    attack: Callable[[str], Outcome], workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("precious")
    attack(f"TARGET = {str(tmp_path)!r}\n{CODE}")
    assert workspace.usage(max_entries=1000)[1] == 2
    workspace.remove_newer(0)
    workspace.close()
    assert (tmp_path / "precious").read_text() == "precious"
