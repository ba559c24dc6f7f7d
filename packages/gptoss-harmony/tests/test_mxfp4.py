"""pack and unpack against a twin that reads like the specification, one value at a time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gptoss_harmony import mxfp4
from gptoss_harmony.errors import CheckpointError, UsageError

MAGNITUDES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def slow_pack_block(values):
    """The OCP rule, exactly: Python floats times powers of two lose nothing here."""
    largest = max(abs(v) for v in values)
    scale = 0 if largest == 0 else min(max(math.frexp(largest)[1] - 1 - 2 + 127, 0), 254)
    codes = []
    for value in values:
        scaled = math.ldexp(abs(value), 127 - scale)
        best = min(range(8), key=lambda c: (abs(MAGNITUDES[c] - scaled), c % 2))
        codes.append(best | (8 if math.copysign(1, value) < 0 else 0))
    return [low | high << 4 for low, high in zip(codes[::2], codes[1::2], strict=True)], scale


def slow_unpack_block(block, scale):
    values = []
    for byte in block:
        for code in (byte & 15, byte >> 4):
            sign = -1.0 if code & 8 else 1.0
            values.append(sign * math.ldexp(MAGNITUDES[code & 7], scale - 127))
    return values


def test_all_codes_at_all_scales_are_exact():
    codes = np.arange(32) % 16
    block = (codes[0::2] | codes[1::2] << 4).astype(np.uint8)
    blocks = np.tile(block, (255, 1, 1))
    scales = np.arange(255, dtype=np.uint8)[:, None]
    wide = mxfp4.unpack(blocks, scales, dtype=np.float64)
    expected = np.array([slow_unpack_block(block.tolist(), scale) for scale in range(255)])
    assert np.array_equal(wide, expected)
    assert np.array_equal(np.signbit(wide), np.signbit(expected))
    single = mxfp4.unpack(blocks, scales)
    assert single.dtype == np.float32
    with np.errstate(over="ignore"):
        assert np.array_equal(single, expected.astype(np.float32))
    assert np.isfinite(single[:253]).all()


def test_packing_what_was_unpacked_gives_the_bytes_back():
    codes = np.arange(32) % 16  # holds 6, so the scale is the one that pack chooses
    block = (codes[0::2] | codes[1::2] << 4).astype(np.uint8)
    blocks = np.tile(block, (255, 1, 1))
    scales = np.arange(255, dtype=np.uint8)[:, None]
    again, again_scales = mxfp4.pack(mxfp4.unpack(blocks, scales, dtype=np.float64))
    assert np.array_equal(again, blocks)
    assert np.array_equal(again_scales, scales)


finite32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
near_ties = st.builds(
    lambda c, e, sign: sign * math.ldexp(c, e),
    st.sampled_from([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0, 7.0, 7.75]),
    st.integers(-40, 40),
    st.sampled_from([-1.0, 1.0]),
)


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(np.float32, (3, 64), elements=finite32))
def test_pack_equals_the_slow_twin(array):
    blocks, scales = mxfp4.pack(array)
    for row in range(3):
        for group in range(2):
            values = array[row, 32 * group : 32 * group + 32].astype(float).tolist()
            block, scale = slow_pack_block(values)
            assert blocks[row, group].tolist() == block
            assert scales[row, group] == scale


@settings(max_examples=100, deadline=None)
@given(st.lists(near_ties, min_size=32, max_size=32))
def test_ties_go_to_even_and_maxima_saturate(values):
    blocks, scales = mxfp4.pack(np.array(values))
    assert (blocks[0].tolist(), scales[0]) == slow_pack_block(values)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint8, (2, 3, 16)), hnp.arrays(np.uint8, (2, 3), elements=st.integers(0, 254)))
def test_values_survive_pack_and_unpack(blocks, scales):
    values = mxfp4.unpack(blocks, scales, dtype=np.float64)
    expected = [
        slow_unpack_block(blocks[i, j].tolist(), int(scales[i, j]))
        for i in range(2)
        for j in range(3)
    ]
    assert np.array_equal(values.reshape(6, 32), np.array(expected))
    assert np.array_equal(mxfp4.unpack(*mxfp4.pack(values), dtype=np.float64), values)


def test_ties_by_hand():
    row = np.zeros(32, np.float32)
    row[:9] = [4.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -5.0]
    blocks, scales = mxfp4.pack(row)
    assert mxfp4.unpack(blocks, scales)[:9].tolist() == [4, 0, 1, 1, 2, 2, 4, 4, -4]
    assert scales.tolist() == [127]


def test_a_maximum_between_six_and_eight_becomes_six():
    row = np.full(32, 7.9, np.float32)
    assert mxfp4.unpack(*mxfp4.pack(row)).tolist() == [6.0] * 32


def test_many_chunks_equal_one_block_at_a_time():
    array = np.random.default_rng(1).standard_normal((1100, 32 * 33)).astype(np.float32)
    blocks, scales = mxfp4.pack(array)
    one, one_scale = mxfp4.pack(array[1099, 32 * 32 :])
    assert np.array_equal(blocks[1099, 32:], one)
    assert scales[1099, 32] == one_scale[0]
    assert np.array_equal(mxfp4.unpack(blocks[5], scales[5]), mxfp4.unpack(blocks, scales)[5])


def test_float16_and_integers_are_read_as_numbers():
    half = np.linspace(-3, 3, 64, dtype=np.float16)
    assert np.array_equal(mxfp4.pack(half)[0], mxfp4.pack(half.astype(np.float64))[0])
    assert mxfp4.unpack(*mxfp4.pack(np.arange(-4, 4).repeat(4))).min() == -4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_named_with_their_place(bad):
    array = np.zeros((2, 3, 64))
    array[1, 2, 40] = bad
    with pytest.raises(CheckpointError, match=r"\[1, 2, 40\].*finite"):
        mxfp4.pack(array)


def test_scale_255_is_named_with_its_place():
    blocks, scales = mxfp4.pack(np.ones((4, 96)))
    scales[3, 1] = 255
    with pytest.raises(CheckpointError, match=r"scale at \[3, 1\] is 255, which is NaN \(1 of 12"):
        mxfp4.unpack(blocks, scales)


def test_shapes_and_types_that_do_not_fit_are_refused():
    blocks, scales = mxfp4.pack(np.ones((2, 64)))
    with pytest.raises(CheckpointError, match="multiple of 32"):
        mxfp4.pack(np.ones((2, 33)))
    with pytest.raises(CheckpointError, match="multiple of 32"):
        mxfp4.pack(np.float32(1))
    with pytest.raises(CheckpointError, match="shape of their scales"):
        mxfp4.unpack(blocks, scales[:1])
    with pytest.raises(CheckpointError, match="uint8"):
        mxfp4.unpack(blocks.astype(np.int16), scales)
    with pytest.raises(UsageError, match="float16"):
        mxfp4.unpack(blocks, scales, dtype=np.float16)


def test_empty_arrays_stay_empty():
    blocks, scales = mxfp4.pack(np.empty((0, 64), np.float32))
    assert (blocks.shape, scales.shape) == ((0, 2, 16), (0, 2))
    assert mxfp4.unpack(blocks, scales).shape == (0, 64)
