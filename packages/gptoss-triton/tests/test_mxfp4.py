import itertools

import torch
import triton
import triton.language as tl

from gptoss_harmony import mxfp4 as numpy_mxfp4
from gptoss_triton.mxfp4 import (
    LARGEST_SCALE,
    decode_panel,
    interleave_gate_up,
    pack_panels,
    panel_factors,
)

EXACT_SCALE = 104  # float16 holds every weight with this scale or a larger one


@triton.jit
def _unpack(blocks, scales, out, rows, panels, ASM: tl.constexpr):
    """Decode everything of 16 rows: (16, P, 64) in out's dtype."""
    like = tl.zeros((1,), out.dtype.element_ty)
    row, column = tl.arange(0, 16)[:, None], tl.arange(0, 64)[None, :]
    for panel in range(0, panels, 2):
        low, high = panel_factors(tl.load(scales + panel // 2 * rows + tl.arange(0, 16)), 16, ASM)
        for part in tl.static_range(2):
            packed = tl.load(
                blocks + (panel + part) * rows * 32 + tl.arange(0, 512)[None, :],
                mask=panel + part < panels,
                other=0,
            )
            weights = decode_panel(packed, low, high, like, part, 16, True, ASM)
            to = out + (row * panels + panel + part) * 64 + column
            tl.store(to, weights, mask=panel + part < panels)


def test_all_codes_and_scales_are_exact(place):
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
    compiled = place.device.type == "cuda"
    expected = torch.from_numpy(numpy_mxfp4.unpack(blocks.numpy(), scales.numpy()))
    ours = pack_panels(blocks.to(place.device), scales.to(place.device))
    panels = ours[0].shape[1]
    out = place.poisoned(16, panels * 64, dtype=torch.float16 if compiled else torch.float32)
    _unpack[(1,)](*ours, out, 16, panels, ASM=compiled)
    actual = out.float().cpu()[:, : groups * 32].reshape(16, groups, 32)
    expected = expected.float().reshape(16, groups, 32)
    whole = scales[0] >= EXACT_SCALE if compiled else scales[0] >= 0
    assert torch.equal(actual[whole], expected[whole])
    assert (actual - expected).abs().max() <= 2.0**-24


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
