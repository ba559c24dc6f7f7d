"""Plant links in the shared folder for whoever writes images there."""

from collections.abc import Callable
from pathlib import Path

from gptoss_tools.python.sandbox import Outcome
from gptoss_tools.python.workspace import Workspace

CODE = """
for number in range(1, 4):
    os.symlink(TARGET, f"/mnt/data/image-{number}.png")
print("HELD")
"""


def test_symlink_for_the_reader(
    attack: Callable[[str], Outcome], workspace: Workspace, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    attack(f"TARGET = {str(target)!r}\n{CODE}")
    assert workspace.save_file("image", ".png", b"png") == "/mnt/data/image-4.png"
    assert target.read_text() == "precious"
