"""Unpack an archive that grows a thousandfold."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome
from gptoss_tools.python.workspace import Workspace

CODE = """
import io, zipfile
packed = io.BytesIO()
with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
    for number in range(40):
        archive.writestr(f"bomb{number}", b"0" * (8 << 20))
print("HELD before", len(packed.getvalue()), flush=True)
zipfile.ZipFile(packed).extractall("/mnt/data")
print("ESCAPED")
"""


def test_zip_bomb(attack: Callable[[str], Outcome], workspace: Workspace) -> None:
    attack(CODE)
    assert workspace.usage(max_entries=1000)[0] <= 32 << 20
