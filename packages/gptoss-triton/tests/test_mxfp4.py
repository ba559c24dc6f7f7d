import itertools

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from gptoss_harmony import mxfp4 as numpy_mxfp4
from gptoss_triton.mxfp4 import LARGEST_SCALE, interleave_gate_up, load_panel, pack_panels


@triton.jit
def _unpack(blocks, scales, out, rows, panels, SCALED: tl.constexpr, ASM: tl.constexpr):
    """Decode everything: (R, P, 64) in out's dtype."""
    row = tl.arange(0, 16)
    column = tl.arange(0, 32)
    like = tl.zeros((1,), out.dtype.element_ty)
    for panel in range(panels):
        low, high, low_scale, high_scale = load_panel(
            blocks, scales, 0, panel, rows, like, 16, SCALED, ASM
        )
        low, high = low.to(tl.float32), high.to(tl.float32)
        if not SCALED:
            low, high = low * low_scale[:, None], high * high_scale[:, None]
        to = out + (row[:, None] * panels + panel) * 64 + column[None, :]
        tl.store(to, low.to(out.dtype.element_ty))
        tl.store(to + 32, high.to(out.dtype.element_ty))


@pytest.mark.parametrize("scaled", [True, False])
def test_all_codes_and_scales_are_exact(place, scaled):
    scale = torch.arange(0, LARGEST_SCALE + 1, dtype=torch.uint8)
    groups = -(-len(scale) // 16)
    scales = torch.zeros(16 * groups, dtype=torch.uint8)
    scales[: len(scale)] = scale
    blocks = torch.tensor(
        [low | (high << 4) for low, high in itertools.product(range(16), range(16))],
        dtype=torch.uint8,
    ).reshape(16, 16)
    blocks = blocks.repeat(groups, 1).reshape(groups, 16, 16).transpose(0, 1)[None].contiguous()
    scales = scales.reshape(1, 16, groups)
    out_dtype = place.dtype if scaled else torch.float32
    expected = numpy_mxfp4.unpack(blocks.numpy(), scales.numpy()).astype(np.float32)
    ours = pack_panels(blocks.to(place.device), scales.to(place.device))
    panels = ours[0].shape[1]
    out = place.poisoned(16, panels * 64, dtype=out_dtype)
    _unpack[(1,)](*ours, out, 16, panels, SCALED=scaled, ASM=place.device.type == "cuda")
    actual = out.float().cpu()[:, : groups * 32]
    assert torch.equal(actual, torch.from_numpy(expected).reshape(16, -1))


def test_packing_keeps_every_byte_count():
    blocks = torch.randint(0, 256, (2, 32, 90, 16), dtype=torch.uint8)
    scales = torch.randint(0, 255, (2, 32, 90), dtype=torch.uint8)
    packed, words = pack_panels(blocks, scales)
    assert packed.shape == (2, 45, 32 * 32)
    assert words.shape == (2, 23, 32)
    assert words.dtype == torch.int32


def test_gate_and_up_rows_are_eight_apart():
    rows = torch.arange(32)[None]
    assert interleave_gate_up(rows)[0, :16].tolist() == [*range(0, 16, 2), *range(1, 16, 2)]
    assert interleave_gate_up(rows)[0, 16:].tolist() == [*range(16, 32, 2), *range(17, 32, 2)]
