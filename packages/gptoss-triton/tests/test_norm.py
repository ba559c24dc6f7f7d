import pytest
import torch

from gptoss_core import ops
from gptoss_triton.launch import Launch
from gptoss_triton.norm import embed, residual_norm


@pytest.mark.parametrize("parts", [0, 1, 4])
@pytest.mark.parametrize("scale", [1.0, 1e15])
def test_residual_norm_adds_then_norms(place, parts, scale):
    x = place.random(3, 100, scale=scale, dtype=torch.float32)
    added = place.random(3, parts, 100) if parts else None
    gain = place.random(100)
    expected = x + (added.float().sum(1) if parts else 0)
    total = place.poisoned(3, 100, dtype=torch.float32)
    out = place.poisoned(3, 100)
    shift = place.random(100) if parts == 1 else None
    expected += 0 if shift is None else shift.float()
    residual_norm(x, added, gain, total, out, shift=shift, launch=Launch())
    place.close(out, ops.rms_norm(expected, gain, 1e-5))
    if parts:
        place.close(total, expected)


def test_embed_reads_rows_and_survives_unused_ones(place):
    table = place.random(7, 40)
    x = place.poisoned(3, 40, dtype=torch.float32)
    embed(place.ints([2, -1, 6]), place.ints([2, 1, 0]), table, x, launch=Launch())
    assert torch.equal(x[0], table[6].float())
    assert torch.equal(x[2], table[2].float())
    assert torch.isfinite(x[1]).all()
