"""Read files of the host by their usual names."""

from collections.abc import Callable
from pathlib import Path

from gptoss_tools.python.sandbox import Outcome

CODE = """
for path in ("/etc/shadow", "/root/.ssh", "/root/.bash_history", "/home", 
             "/var/run/secrets", "/boot", "/srv", SECRET):
    def look():
        if os.path.isdir(path):
            names = [n for n in os.listdir(path) if n != ".pyenv"]
            return names or None
        return open(path).read(10) or None
    attempt(path, look)
"""


def test_host_files(attack: Callable[[str], Outcome], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret of the host")
    tmp_path.chmod(0o755)
    attack(f"SECRET = {str(secret)!r}\n{CODE}")
