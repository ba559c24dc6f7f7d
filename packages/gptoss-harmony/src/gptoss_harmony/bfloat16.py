"""bfloat16 for numpy, which has no such type: the bits are kept in uint16 arrays.

A bfloat16 is the upper half of a float32, so widening is a shift and narrowing is a rounding of
the lower half, to nearest, ties to even:

```
bits = bfloat16.from_float32(np.float32([1.0, -2.5]))   # uint16 [0x3F80, 0xC020]
bfloat16.to_float32(bits)                               # float32 [1.0, -2.5]
```
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen bfloat16 bits to float32, exactly.

    Args:
        bits: uint16 array of any shape.

    Returns:
        A new float32 array of the same shape.
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def from_float32(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Round to bfloat16: nearest, ties to even; NaN stays NaN, overflow becomes infinity.

    Args:
        values: float array of any shape; wider types are taken through float32 first.

    Returns:
        A new uint16 array of the same shape.
    """
    single = np.ascontiguousarray(values, dtype=np.float32).reshape(np.shape(values))
    bits = single.view(np.uint32)
    # Adding 0x7FFF, plus one where the kept half is odd, carries into it exactly when rounding up.
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    nan = np.isnan(single)
    if nan.any():
        rounded[nan] = 0x7FC0  # the carry could otherwise turn a NaN into infinity
    return rounded
