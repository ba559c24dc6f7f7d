"""Without a jail the attacks succeed: what the other files see failing would be seen working."""

import runpy
import socket
from contextlib import closing
from pathlib import Path

import pytest

from gptoss_tools.python.host import UnsafeHostSandbox
from gptoss_tools.python.sandbox import run_code
from gptoss_tools.python.workspace import Workspace

HERE = Path(__file__).parent
PRELUDE = runpy.run_path(str(HERE / "conftest.py"))["PRELUDE"]


def unjailed(name: str, **values: object) -> str:
    """The output of one (harmless) attack on the bare host."""
    code = runpy.run_path(str(HERE / f"test_{name}.py"))["CODE"]
    given = "\n".join(f"{key} = {value!r}" for key, value in values.items())
    sandbox = UnsafeHostSandbox(i_know_this_is_unsafe=True)
    with closing(Workspace()) as workspace:
        return run_code(sandbox, f"{PRELUDE}\n{given}\n{code}", workspace).output


def test_the_network_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        output = unjailed("network_loopback_of_the_host", PORT=server.getsockname()[1])
    assert "ESCAPED connect" in output


def test_files_of_the_host_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    assert "ESCAPED" in unjailed("host_files", SECRET=str(secret))
    assert "ESCAPED" in unjailed("host_files_through_proc", SECRET=str(secret))


def test_secrets_in_the_environment_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTACKED_API_KEY", "hunter2")
    assert "ESCAPED own" in unjailed("host_environment")
