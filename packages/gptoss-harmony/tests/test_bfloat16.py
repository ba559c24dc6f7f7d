import numpy as np
import pytest

from gptoss_harmony import bfloat16

torch = pytest.importorskip("torch")


def test_widening_and_narrowing_return_every_pattern():
    bits = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    values = bfloat16.to_float32(bits)
    back = bfloat16.from_float32(values)
    nan = np.isnan(values)
    assert np.array_equal(back[~nan], bits[~nan])
    assert np.isnan(bfloat16.to_float32(back[nan])).all()


def test_rounding_equals_torch():
    generator = np.random.default_rng(0)
    values = generator.integers(0, 1 << 32, 200_000, dtype=np.uint64).astype(np.uint32)
    values = values.view(np.float32)
    values = values[np.isfinite(values)]
    ties = (np.arange(1 << 16, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    values = np.concatenate([values, ties[np.isfinite(ties)]])
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy()
    assert np.array_equal(bfloat16.from_float32(values).view(np.int16), expected)


def test_shapes_are_kept_even_without_axes():
    assert bfloat16.from_float32(np.float32(1.0).reshape(())).shape == ()
    assert bfloat16.to_float32(np.zeros((2, 0, 3), np.uint16)).shape == (2, 0, 3)


def test_wider_than_float32_goes_through_it():
    values = np.array([1e300, -1e300, 1.0, np.nan])
    bits = bfloat16.from_float32(values)
    assert bits[:3].tolist() == [0x7F80, 0xFF80, 0x3F80]
    assert np.isnan(bfloat16.to_float32(bits)[3])


def test_many_chunks_and_strides_equal_one_value_at_a_time():
    values = np.random.default_rng(0).standard_normal((700, 300)).astype(np.float32).T
    one_by_one = [bfloat16.from_float32(row[[5]])[0] for row in values[::50]]
    assert bfloat16.from_float32(values)[::50, 5].tolist() == [int(bit) for bit in one_by_one]
