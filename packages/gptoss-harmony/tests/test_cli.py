"""The `gptoss` command: one sentence and exit code 2 for what a user can mend."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from gptoss_harmony import cli
from gptoss_harmony.errors import UsageError


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gptoss_harmony.cli", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_commands_and_what_more_could_be_installed() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in ("generate", "download", "inspect", "convert", "bench"):
        assert name in done.stdout


def test_a_command_of_a_missing_wheel_names_the_wheel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "discover", lambda group: {})
    assert cli.main(["serve", "--port", "1"]) == 2
    assert "pip install gptoss-serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["generate", "no/such/folder", "-b", "scripted"],
        ["generate", "nano", "-b", "warp-drive"],
        ["generate", "nano", "-t", "-1", "-b", "scripted"],
        ["bench", "no-such-case"],
    ],
)
def test_user_mistakes_are_one_sentence(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert "gptoss: " in error
    assert "Traceback" not in error


def test_an_unknown_flag_of_a_command_is_refused() -> None:
    for argv in (
        ["inspect", "nano", "--colour"],
        ["generate", "nano", "-b", "scripted", "--colour"],
    ):
        done = run(*argv)
        assert done.returncode == 2
        assert "--colour" in done.stderr


def raising(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no"), 2),
        (KeyboardInterrupt(), 130),
        (PermissionError(13, "Permission denied", "/x"), 2),
    ],
)
def test_failures_become_exit_codes(error: BaseException, code: int) -> None:
    assert cli.run_safely(raising(error)) == code


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.run_safely(raising(ZeroDivisionError()))
