"""Read secrets from environments, ours and those of other processes."""

from collections.abc import Callable

import pytest

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("own", lambda: "hunter2" in str(dict(os.environ)) or None)
for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
    attempt(pid, lambda: b"hunter2" in open(f"/proc/{pid}/environ", "rb").read() or None)
"""


def test_host_environment(
    attack: Callable[[str], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTACKED_API_KEY", "hunter2")
    attack(CODE)
