"""`gptoss bench` finds cases and hands their flags over; the engine case measures any engine."""

import json
from pathlib import Path

import pytest

from gptoss_harmony import cli


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"replies": [[11] * 100]}))
    return str(path)


def test_the_engine_case_reports_a_row_per_batch(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--checkpoint", script, "--batch", "1", "3", "--new-tokens", "5", "--json"]
    assert cli.main(["bench", "engine", "--engine", "scripted", *flags]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["batch"] for row in rows] == [1, 3]
    assert rows[0]["speedup"] == 1.0
    assert all(row["decode_rate"] > 0 for row in rows)


def test_without_a_case_the_engine_case_runs(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--checkpoint", script, "--batch", "1", "--new-tokens", "3"]
    assert cli.main(["bench", "--engine", "scripted", *flags]) == 0
    assert "scripted" in capsys.readouterr().out


def test_case_help_shows_the_flags_of_the_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "engine", "--case-help"]) == 0
    assert "--new-tokens" in capsys.readouterr().out


def test_engine_options_pass_through(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--checkpoint", script, "--batch", "1", "--context", "1"]
    assert cli.main(["bench", "--engine", "scripted", *flags]) == 2
    assert "context" in capsys.readouterr().err
