from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gptoss_core.train import quantize
from gptoss_harmony import mxfp4
from gptoss_harmony.nano_rows import expand_rows, quantise_rows

# Weights, zeros included; the flush of numbers near the end of float32 is no concern.
NUMBERS = st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) > 1e-20 else 0.0)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (3, 64), elements=NUMBERS))
def test_mxfp4_rounds_as_pack_does(values: np.ndarray) -> None:
    expected = mxfp4.unpack(*mxfp4.pack(values))
    rounded = quantize.mxfp4(torch.from_numpy(values))
    assert np.array_equal(rounded.numpy(), expected)


@pytest.mark.parametrize("scale", [1e-3, 0.02, 1.0, 300.0])
def test_mxfp4_rounds_normal_weights_as_pack_does(scale: float) -> None:
    weight = torch.randn(4, 8, 96, generator=torch.Generator().manual_seed(0)) * scale
    expected = mxfp4.unpack(*mxfp4.pack(weight.numpy()))
    assert np.array_equal(quantize.mxfp4(weight).numpy(), expected)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (4, 8), elements=NUMBERS))
def test_int8_rows_round_as_the_packer_does(values: np.ndarray) -> None:
    expected = expand_rows(*quantise_rows(values))
    assert np.array_equal(quantize.int8_rows(torch.from_numpy(values)).numpy(), expected)


def test_gradient_passes_straight_through() -> None:
    weight = torch.randn(2, 32, requires_grad=True)
    rounded = quantize.straight_through(weight, quantize.mxfp4(weight.detach()))
    rounded.backward(torch.arange(64.0).view(2, 32))
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.arange(64.0).view(2, 32))
