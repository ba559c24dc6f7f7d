"""`gptoss tool` by hand: results, JSON, exit codes, one sentence for mistakes."""

import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from gptoss_harmony.cli import main

PATCH = "*** Begin Patch\n*** Add File: a.txt\n+x\n*** End Patch\n"


def tool(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["tool", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_apply_patch_from_file_and_standard_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "p").write_text(PATCH)
    arguments = ["apply_patch", str(tmp_path / "p"), "--root", str(root)]
    assert tool(capsys, *arguments, "--dry-run")[:2] == (
        0,
        "A a.txt\nDone! (dry run: nothing was written)\n",
    )
    assert tool(capsys, *arguments)[:2] == (0, "A a.txt\nDone!\n")
    code, out, err = tool(capsys, *arguments)
    assert (code, out) == (1, "")
    assert "exists already" in err
    assert tool(capsys, "apply_patch", "--undo", "--root", str(root))[0] == 0
    assert not (root / "a.txt").exists()
    monkeypatch.setattr("sys.stdin", io.StringIO(PATCH))
    assert tool(capsys, "apply_patch", "--root", str(root), "--final-newline")[0] == 0
    assert (root / "a.txt").read_text() == "x\n"


def test_apply_patch_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "p").write_text(PATCH.replace("Add", "Delete").replace("+x\n", ""))
    code, out, _ = tool(
        capsys, "apply_patch", str(tmp_path / "p"), "--root", str(tmp_path), "--json"
    )
    assert code == 1
    data = json.loads(out)
    assert data["ok"] is False
    assert "line 2" in data["error"]


def test_a_browser_conversation_in_a_file(
    capsys: pytest.CaptureFixture[str], corpus: Path, tmp_path: Path
) -> None:
    state = ["--index", str(corpus), "--state", str(tmp_path / "state.json")]
    code, out, _ = tool(capsys, "browser", "search", "tea", *state)
    assert code == 0
    assert out.startswith("[0] tea\n")
    assert tool(capsys, "browser", "open", "0", *state)[1].startswith("[1] ")
    assert tool(capsys, "browser", "find", "80", *state)[1].startswith("[2] Find results")
    code, out, _ = tool(capsys, "browser", "open", "99", "--cursor", "0", *state, "--json")
    assert code == 1
    assert json.loads(out) == {"ok": False, "text": "Invalid link id `99`."}


@pytest.mark.parametrize(
    "saved",
    [
        "[]",
        "3",
        "{",
        '{"pages": [{}], "stack": [0]}',
        '{"pages": [], "stack": [4]}',
        '{"pages": [], "stack": ["a"]}',
    ],
)
def test_a_file_that_is_no_saved_conversation(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, saved: str
) -> None:
    (tmp_path / "state.json").write_text(saved)
    code, out, err = tool(capsys, "browser", "open", "--state", str(tmp_path / "state.json"))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_bytes_that_are_no_text_can_be_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "p").write_text("*** Begin Patch\n*** Update File: a.txt\n@@\n-no\n*** End Patch\n")
    arguments = ["apply_patch", str(tmp_path / "p"), "--root", str(tmp_path)]
    code, out, _ = tool(capsys, *arguments, "--json")
    assert code == 1
    assert "caf?" in json.loads(out)["error"]


def test_indexing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("words")
    code, out, _ = tool(capsys, "browser", "index", str(tmp_path / "docs"), "--json")
    data = json.loads(out)
    assert code == 0
    assert (data["added"], data["index"]) == (1, f"{tmp_path / 'docs'}.db")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["browser", "search", "x", "--backend", "corpus"], "needs --index"),
        (["browser", "search", "x", "--index", "/nowhere.db"], "there is no index"),
        (["browser", "index", "/nowhere"], "not a folder"),
        (["python", "/nowhere.py", "--unsafe-host"], "No such file"),
        (["python", "-c", "1", "--timeout", "0", "--unsafe-host"], "must be positive"),
        (["python", "-c", "1", "--timeout", "nan", "--unsafe-host"], "must be positive"),
        (["serve", "browser", "--port", "99999"], "between 0 and 65535"),
        (["browser", "search", "x", "--backend", "exa"], "EXA_API_KEY"),
        (["browser", "search", "x", "--backend", "youcom"], "YDC_API_KEY"),
    ],
)
def test_mistakes_end_in_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.delenv("EXA_API_KEY", raising=False)
    monkeypatch.delenv("YDC_API_KEY", raising=False)
    code, out, err = tool(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = tool(capsys, "serve", "apply_patch", "--port", port)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert port in err


def test_an_apply_patch_outside_any_folder_is_the_patchs_failure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "p").write_text(PATCH)
    code, _, err = tool(capsys, "apply_patch", str(tmp_path / "p"), "--root", "/nowhere")
    assert code == 1
    assert "existing folder" in err


def test_python_on_the_unsafe_host(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = tool(capsys, "python", "-c", "print(6 * 7)", "--unsafe-host")
    assert (code, out) == (0, "42\n")
    code, out, _ = tool(capsys, "python", "-c", "1/0", "--unsafe-host", "--json")
    assert code == 1
    result: dict[str, Any] = json.loads(out)
    assert result["exit_code"] == 1
    assert "ZeroDivisionError" in result["output"]
    file = tmp_path / "code.py"
    file.write_text("open('made', 'w').write('x')")
    folder = tmp_path / "data"
    assert tool(capsys, "python", str(file), "--unsafe-host", "--data", str(folder))[0] == 0
    assert (folder / "made").exists()
