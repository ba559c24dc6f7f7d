from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gptoss_core.staging import Stager, map_part
from gptoss_harmony.checkpoint import Part
from gptoss_harmony.errors import CheckpointError


@pytest.mark.parametrize("piece_bytes", [64, 1000, 1 << 20])
def test_what_is_sent_arrives(piece_bytes: int) -> None:
    stager = Stager(torch.device("cpu"), piece_bytes=piece_bytes)
    generator = torch.Generator().manual_seed(0)
    sources = [
        torch.randn(7, 5, 33, generator=generator).bfloat16(),
        torch.randint(0, 256, (3, 40, 2, 16), dtype=torch.uint8, generator=generator)[:, 7:29],
        torch.randn(6, 32, generator=generator).bfloat16().T,
        torch.randn(200, generator=generator).bfloat16(),
        torch.zeros(0, 4, dtype=torch.uint8),
    ]
    try:
        targets = [stager.send(source) for source in sources]
        stager.finish()
    finally:
        stager.close()
    for source, target in zip(sources, targets, strict=True):
        assert target.is_contiguous()
        assert torch.equal(source, target)


def test_mapped_bytes_are_the_file_s_and_writing_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(100)))
    mapped = map_part(Part(path, 4, 28, (2, 3, 4), "U8", transposed=True))
    assert mapped.shape == (2, 4, 3)
    assert mapped[1, 3].tolist() == [19, 23, 27]
    mapped.zero_()
    assert path.read_bytes() == bytes(range(100))


def test_bf16_at_an_odd_place(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    values = torch.tensor([1.5, -3.0, 0.25]).bfloat16()
    path.write_bytes(b"x" + values.view(torch.int16).numpy().tobytes())
    assert torch.equal(map_part(Part(path, 1, 7, (3,), "BF16")), values)


def test_a_file_that_changed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    part = Part(path, 0, 64, (64,), "U8")
    with pytest.raises(CheckpointError, match="bytes changed since it was opened"):
        map_part(part)
    path.write_bytes(b"short")
    with pytest.raises(CheckpointError, match="bytes changed since it was opened"):
        map_part(part)
