import numpy as np
import pytest

from gptoss_harmony.transpose import transposed


@pytest.mark.parametrize("shape", [(1, 1), (256, 257), (3, 700, 130), (2, 0, 5)])
def test_equals_a_swapped_view(shape):
    array = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    result = transposed(array)
    assert np.array_equal(result, array.swapaxes(-1, -2))
    assert result.flags.c_contiguous
    assert np.array_equal(transposed(array.swapaxes(-1, -2)), array)
