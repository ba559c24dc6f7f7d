"""openai-harmony and oss-harmony install the same module: ours gives the same bytes with either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gptoss_harmony
from gptoss_harmony.testing import require

pytestmark = [pytest.mark.two_venvs, pytest.mark.slow]

CORPUS = Path(__file__).parent / "harmony_corpus.py"
SOURCE = Path(gptoss_harmony.__file__).parents[1]


def corpus_in_a_venv(folder: Path, distribution: str) -> dict[str, Any]:
    """Install one distribution into a fresh environment and run the corpus there."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [python, "-m", "pip", "install", "-q", distribution, "numpy"]
    installed = subprocess.run(install, capture_output=True, text=True)
    require(installed.returncode == 0, f"pip cannot install {distribution}: {installed.stderr}")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    environment.pop("TIKTOKEN_ENCODINGS_BASE", None)
    done = subprocess.run(
        [python, CORPUS], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def test_both_distributions_give_the_same_bytes(tmp_path: Path) -> None:
    openai = corpus_in_a_venv(tmp_path / "openai", "openai-harmony==0.0.8")
    oss = corpus_in_a_venv(tmp_path / "oss", "oss-harmony==0.0.11")
    oracles = ("theirs", "ours", "ours, channel first")
    for name in openai.keys() - set(oracles):
        assert openai[name] == oss[name], name
    # Each library's own rendering of a past call, against ours in the same order.
    assert openai["theirs"] == openai["ours"]
    assert oss["theirs"] == oss["ours, channel first"]
    assert openai["theirs"] != oss["theirs"]
