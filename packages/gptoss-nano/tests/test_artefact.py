"""The model that ships: its format, its size, and (slow) that it does what its card says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from recipe.score import BARS, score

from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.nano import PackedNano, packed_path, unpack

ROOT = Path(__file__).parents[1]
SAMPLE = 10  # conversations a family: about a minute on two cores
CARD = ROOT / "src" / "gptoss_nano" / "card.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("cache"))


def test_the_packed_file_is_small_and_ours() -> None:
    assert packed_path() == ROOT / "src" / "gptoss_nano" / "nano.safetensors"
    assert packed_path().stat().st_size <= 16_000_000
    packed = PackedNano.open(packed_path())
    assert packed.config.head_dim == 64
    assert packed.config.vocab_size == 201_088
    recorded = np.load(ROOT / "recipe" / "rows.npy")
    assert (packed.read("rows") == recorded).all()


def test_it_unpacks_to_a_checkpoint_whose_rows_all_differ(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.layout == "original"
    for name in ("embedding.weight", "unembedding.weight"):
        rows = np.ascontiguousarray(checkpoint.read(name))
        assert len(np.unique(rows.view(f"V{rows.shape[1] * 2}"))) == 201_088


def test_the_card_has_the_scores_of_this_file() -> None:
    text = CARD.read_text("utf-8")
    scores = json.loads((ROOT / "recipe" / "scores.json").read_text())
    for family, parts in scores["families"].items():
        row = re.search(rf"^\| {family} \|(.*)\|$", text, re.MULTILINE)
        assert row is not None, family
        assert f" {100 * parts['inside']['all']:.1f}% " in row[1]
    for bar in scores["missed_bars"]:
        assert bar.partition(":")[0] in text


@pytest.mark.slow
def test_a_sample_scores_as_the_card_says(folder: Path) -> None:
    torch_engine = pytest.importorskip("gptoss_core.engine", reason="gptoss-core is not installed")
    options = torch_engine.TorchOptions(
        device="cpu", dtype="float32", experts="dense", max_batch=40, context=4096
    )
    engine = torch_engine.TorchEngine.open(str(folder), options)
    rows = PackedNano.open(packed_path()).read("rows")
    claimed = json.loads((ROOT / "recipe" / "scores.json").read_text())
    found, _ = score(engine, rows.tolist(), count=SAMPLE, parts=["inside"], seed="sample")
    engine.close()
    assert found["well_formed_inside"] >= claimed["well_formed_inside"] - 0.05
    for family, (which, _) in BARS.items():
        reached = found["families"][family]["inside"][which]
        share = claimed["families"][family]["inside"][which]
        # Three standard errors of the sample, and never less than one conversation.
        slack = max(1 / SAMPLE, 3 * (share * (1 - share) / SAMPLE) ** 0.5)
        assert reached >= share - slack, family
    low, medium, high = found["thought_inside"].values()
    assert low < medium < high
