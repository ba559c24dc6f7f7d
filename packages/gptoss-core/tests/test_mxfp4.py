from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_core import mxfp4
from gptoss_harmony import mxfp4 as reference
from gptoss_harmony.errors import CheckpointError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_byte_with_every_scale(dtype: torch.dtype) -> None:
    blocks = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(255, axis=0)
    scales = np.arange(255, dtype=np.uint8)[:, None].repeat(16, axis=1)
    expected = reference.unpack(blocks, scales)
    lookup = mxfp4.tables(dtype, "cpu")
    bytewise = mxfp4.Tables(_one_byte_words(dtype), lookup.powers)  # as on an accelerator
    for each in (lookup, bytewise):
        values = mxfp4.unpack(torch.from_numpy(blocks), torch.from_numpy(scales), each)
        assert values.dtype == dtype
        np.testing.assert_array_equal(values.float().numpy(), expected)


def _one_byte_words(dtype: torch.dtype) -> torch.Tensor:
    byte = np.arange(256, dtype=np.uint8)[:, None].repeat(16, axis=1)[:, None]
    pairs = reference.unpack(byte, np.full((256, 1), 127, np.uint8))[:, :2]
    words = torch.from_numpy(pairs.copy()).to(dtype)
    return words.view(torch.int32 if dtype == torch.bfloat16 else torch.int64).flatten()


def test_scale_255_is_nan() -> None:
    blocks = torch.full((1, 1, 16), 0x22, dtype=torch.uint8)
    scales = torch.full((1, 1), 255, dtype=torch.uint8)
    values = mxfp4.unpack(blocks, scales, mxfp4.tables(torch.float32, "cpu"))
    assert bool(values.isnan().all())


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.01, 1.0, 30.0, 90.0]))
def test_packs_the_same_bytes_as_the_shared_format(seed: int, spread: float) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(4, 64)) * 2.0 ** generator.normal(scale=spread, size=(4, 64))
    values = np.clip(values, -3e38, 3e38).astype(np.float32)
    values[0, :32] = 0.0
    values[1] = np.round(values[1] / np.abs(values[1]).max() * 4) / 4  # many ties
    check_same_bytes(values)


def check_same_bytes(values: np.ndarray) -> None:
    blocks, scales = mxfp4.pack(torch.from_numpy(values))
    expected_blocks, expected_scales = reference.pack(values)
    np.testing.assert_array_equal(scales.numpy(), expected_scales)
    np.testing.assert_array_equal(blocks.numpy(), expected_blocks)


def test_ties_saturation_and_tiny_numbers() -> None:
    ladder = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.9], np.float32)
    block = np.concatenate([ladder, -ladder, np.nextafter(ladder, 9), np.nextafter(ladder, 0)])
    block = block.clip(-7.99, 7.99).astype(np.float32)[None]
    for exponent in (-148, -130, -126, -3, 0, 60, 125):
        check_same_bytes(np.ldexp(block, exponent).astype(np.float32))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_must_be_finite(bad: float) -> None:
    values = torch.zeros(1, 32)
    values[0, 3] = bad
    with pytest.raises(CheckpointError, match="finite"):
        mxfp4.pack(values)


def test_the_last_axis_must_be_whole_blocks() -> None:
    with pytest.raises(CheckpointError, match="multiple of 32"):
        mxfp4.pack(torch.zeros(2, 33))
