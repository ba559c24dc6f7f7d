"""`python -m gptoss_core.generate`: alone and split over two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptoss_core.generate import main
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with harmony's whole vocabulary, of sizes that two processes can share."""
    path = tmp_path_factory.mktemp("checkpoint") / "original"
    return random_checkpoint(path, tiny_config(num_attention_heads=8, num_key_value_heads=2))


FLAGS = ("-p", "Count to three.", "-l", "6", "--dtype", "float32", "--device", "cpu", "--json")


def test_it_answers_in_harmony_and_in_plain_text(folder, capsys) -> None:
    assert main([str(folder), *FLAGS]) == 0
    harmony = json.loads(capsys.readouterr().out)
    assert harmony["engine"] == "torch"
    assert harmony["stats"]["generated_tokens"] == len(harmony["tokens"]) <= 6
    assert main([str(folder), *FLAGS, "--raw"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["stats"]["prompt_tokens"] == 4
    assert plain["text"]


@pytest.mark.slow
def test_two_processes_answer_as_one_and_print_once(folder: Path, capsys) -> None:
    def result(text: str) -> tuple[list[int], Any]:
        content = json.loads(text)
        return content["tokens"], content["messages"]

    assert main([str(folder), *FLAGS]) == 0
    alone = result(capsys.readouterr().out)
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    command = [*launch, "-m", "gptoss_core.generate", str(folder), *FLAGS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert result(done.stdout) == alone  # one JSON object, not two


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["-b", "metal"], "runs engine torch only"),
        (["--device", "abacus"], "there is no device 'abacus'"),
        (["--context", "0"], "context must be at least 1"),
        (["--context", "5", "-l", "1"], "leaves no room for an answer"),
    ],
)
def test_mistakes_end_in_one_sentence(folder: Path, capsys, flags, sentence) -> None:
    assert main([str(folder), *flags]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    with pytest.raises(SystemExit, match="2"):
        main([str(folder), "--no-such-flag"])
    assert "--no-such-flag" in capsys.readouterr().err
    assert main(["no-such-folder"]) == 2
    assert "no-such-folder" in capsys.readouterr().err
