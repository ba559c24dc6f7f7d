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

_CHUNK = 1 << 16  # values rounded at once: the temporaries stay in the cache


def to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen bfloat16 bits to float32, exactly.

    Args:
        bits: uint16 array of any shape.

    Returns:
        A new float32 array of the same shape.
    """
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def from_float32(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Round to bfloat16: nearest, ties to even; NaN stays NaN, overflow becomes infinity.

    Args:
        values: float array of any shape; wider types are taken through float32 first.

    Returns:
        A new uint16 array of the same shape.
    """
    flat = np.asarray(values).reshape(-1)
    rounded = np.empty(flat.shape, np.uint16)
    for start in range(0, len(flat), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        with np.errstate(over="ignore", invalid="ignore"):
            single = np.ascontiguousarray(flat[chunk], np.float32)
        bits = single.view(np.uint32)
        # Adding 0x7FFF, plus one where the kept half is odd, carries into it when rounding up.
        carry = (bits >> 16) & 1
        carry += 0x7FFF
        carry += bits
        rounded[chunk] = carry >> 16
        nan = np.isnan(single)
        if nan.any():
            rounded[chunk][nan] = 0x7FC0  # the carry could otherwise turn a NaN into infinity
    return rounded.reshape(np.shape(values))
