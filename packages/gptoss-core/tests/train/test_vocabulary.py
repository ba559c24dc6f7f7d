from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gptoss_core.train.vocabulary import ActiveRows, read_rows
from gptoss_harmony.errors import UsageError


def test_compact_numbers_lead_back_to_the_tokens() -> None:
    active = ActiveRows(np.array([3, 5, 8, 40]), size=100, candidates=6)
    tokens = np.array([[3, 40, 99], [7, 8, 7]])
    compact, candidates = active.compact(tokens, seed=1)
    assert len(candidates) == 6
    assert not np.isin(candidates, active.rows).any()
    assert np.array_equal(np.concatenate([active.rows, candidates])[compact], tokens)


def test_too_many_frozen_ids_are_refused() -> None:
    active = ActiveRows(np.array([3, 5]), size=100, candidates=2)
    with pytest.raises(UsageError, match=r"holds 3 token ids outside .* 2 candidates"):
        active.compact(np.array([10, 11, 12]), seed=0)


def test_rows_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.array([5, 1, 5], dtype=np.uint32))
    assert read_rows(path, 10).tolist() == [1, 5]
    with pytest.raises(UsageError, match="the model has 4 rows"):
        read_rows(path, 4)
    np.save(path, np.array([1.5]))
    with pytest.raises(UsageError, match="integer ids"):
        read_rows(path, 10)
    with pytest.raises(UsageError, match=r"not a \.npy file"):
        read_rows(tmp_path / "none.npy", 10)
