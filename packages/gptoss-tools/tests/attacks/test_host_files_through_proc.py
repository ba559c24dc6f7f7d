"""Leave through /proc: roots, working folders and descriptors of others."""

from collections.abc import Callable
from pathlib import Path

from gptoss_tools.python.sandbox import Outcome

CODE = """
for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
    for name in ("root", "cwd"):
        def look():
            return os.path.exists(f"/proc/{pid}/{name}{SECRET}") or None
        attempt(f"{pid}/{name}", look)
"""


def test_host_files_through_proc(attack: Callable[[str], Outcome], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret of the host")
    attack(f"SECRET = {str(secret)!r}\n{CODE}")
