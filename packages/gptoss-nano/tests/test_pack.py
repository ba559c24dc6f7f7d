"""Packing loses nothing, and refuses what it would lose."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe.pack import pack

from gptoss_harmony import nano
from gptoss_harmony.checkpoint import Checkpoint


def test_unpacking_gives_back_every_byte(original: Path, packed: Path, tmp_path: Path) -> None:
    nano.unpack_file(packed, tmp_path / "nano")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "nano" / name).read_bytes() == (original / name).read_bytes()


def test_the_tables_shrink_to_the_learned_rows(packed: Path, original: Path) -> None:
    assert packed.stat().st_size < 100_000
    assert (original / "model.safetensors").stat().st_size > 50_000_000


def test_a_row_that_int8_cannot_hold_is_refused(
    original: Path, kept: np.ndarray, codes: dict[str, Any], tmp_path: Path
) -> None:
    folder = _copy(original, tmp_path)
    _change(folder, "embedding.weight", int(kept[1]), [0x3F80, 0x3A01])  # 1.0 and 0.00049...
    with pytest.raises(ValueError, match="1 learned rows of embedding are not int8"):
        pack(folder, kept, tmp_path / "x", **codes)
    assert not (tmp_path / "x").exists()


def test_a_row_that_is_not_generated_is_refused(
    original: Path, kept: np.ndarray, codes: dict[str, Any], tmp_path: Path
) -> None:
    folder = _copy(original, tmp_path)
    _change(folder, "unembedding.weight", 20_000, [0x3F80])
    with pytest.raises(ValueError, match=r"unembedding.weight: 1 rows differ.*20000"):
        pack(folder, kept, tmp_path / "x", **codes)
    assert list(tmp_path.iterdir()) == [folder]


def _copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def _change(folder: Path, name: str, row: int, bits: list[int]) -> None:
    """Overwrite the first values of a row in the file."""
    (part,) = Checkpoint.open(folder).tensors[name].parts
    table = np.memmap(part.path, np.uint16, "r+", part.start, part.shape)
    table[row, : len(bits)] = bits
    table.flush()
