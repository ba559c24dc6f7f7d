"""Name another folder through the shared one and read it."""

from collections.abc import Callable
from pathlib import Path

from gptoss_tools.python.sandbox import Outcome

CODE = """
os.symlink("/../../../../", "/mnt/data/up")
attempt("up", lambda: os.path.exists("/mnt/data/up" + SECRET) or None)
attempt("dots", lambda: os.path.exists("/mnt/data/../../../../.." + SECRET) or None)
"""


def test_symlink_for_the_jail(attack: Callable[[str], Outcome], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret of the host")
    attack(f"SECRET = {str(secret)!r}\n{CODE}")
