"""Read the files of another conversation."""

from collections.abc import Callable
from contextlib import closing

from gptoss_tools.python.sandbox import Outcome
from gptoss_tools.python.workspace import Workspace

CODE = """
import glob
attempt("folders", lambda: [p for p in glob.glob("/tmp/gptoss-*/*") if "other" in p] or None)
attempt("secret", lambda: open(OTHER).read())
"""


def test_other_conversations(attack: Callable[[str], Outcome]) -> None:
    with closing(Workspace()) as other:
        (other.data / "secret").write_text("other")
        attack(f"OTHER = {str(other.data / 'secret')!r}\n{CODE}")
