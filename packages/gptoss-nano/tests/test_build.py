"""Shards: complete, the same whoever makes them, and free of held-out names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recipe.build import main
from recipe.mixture import TASKS
from recipe.words import Words

from gptoss_harmony.encoding import load_encoding

SIZE = ["--tokens", "40000", "--shard-tokens", "20000", "--seed", "test"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    assert main(["--out", str(folder), "--workers", "2", *SIZE]) == 0
    return folder


def test_a_shard_holds_whole_documents(shards: Path) -> None:
    assert sorted(path.name for path in shards.iterdir()) == ["train-00000.npz", "train-00001.npz"]
    shard = np.load(shards / "train-00000.npz")
    starts = shard["starts"]
    assert shard["tokens"].dtype == np.uint32
    assert len(shard["tokens"]) == len(shard["labels"]) == starts[-1] >= 20_000
    assert len(shard["task"]) == len(starts) - 1
    assert shard["tasks"].tolist() == list(TASKS)
    assert (shard["tokens"][starts[:-1]] == 200_006).all()
    assert (np.diff(starts) <= 2048).all()


def test_the_number_of_workers_changes_nothing(shards: Path, tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--workers", "1", *SIZE])
    for path in shards.iterdir():
        one, two = np.load(path), np.load(tmp_path / path.name)
        assert all((one[name] == two[name]).all() for name in one.files)


def test_held_out_names_never_occur_in_training(shards: Path) -> None:
    barred = Words(load_encoding().encode_text).held_out_ids()
    recorded = np.load(Path(__file__).parents[1] / "recipe" / "heldout.npy")
    assert (barred == recorded).all()
    for path in shards.iterdir():
        assert not np.isin(np.load(path)["tokens"], barred).any()


def test_learned_rows_are_the_recorded_ones() -> None:
    rows = np.load(Path(__file__).parents[1] / "recipe" / "rows.npy")
    assert rows.shape == (8192,)
    assert (np.diff(rows.astype(np.int64)) > 0).all()
    assert set(range(256)) <= set(rows.tolist())
    assert {200_002, 200_003, 200_005, 200_006, 200_007, 200_008, 200_012} <= set(rows.tolist())
