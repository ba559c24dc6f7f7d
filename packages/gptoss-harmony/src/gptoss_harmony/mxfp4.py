"""MXFP4, the block format of the expert weights, in numpy.

32 neighbours along the last axis share one power of two; each is a 4-bit float (OCP Microscaling
Formats v1.0, E2M1 elements with E8M0 scales):

```
code        0   1   2   3   4   5   6   7      (+8: the same, negative; 8 is -0)
value       0  .5   1 1.5   2   3   4   6      times 2 ** (scale - 127)
byte        even element in the low nibble, odd element in the high one: 16 bytes a block
```

`pack` takes the scale from the largest magnitude of the block, `floor(log2(max)) - 2`, and rounds
each element to nearest, ties to the even code. A maximum of 7 therefore becomes 6: the format
saturates. `unpack` is exact.

```
blocks, scales = mxfp4.pack(weight)       # (R, C) -> uint8 (R, C/32, 16), uint8 (R, C/32)
weight = mxfp4.unpack(blocks, scales)     # float32 (R, C)
```
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gptoss_harmony.config import MXFP4_BLOCK
from gptoss_harmony.errors import CheckpointError, UsageError

VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of codes 0..7
NAN_SCALE = 255
_BIAS = 127
_LARGEST_EXPONENT = 2  # of an element: 6 = 1.5 * 2**2
_BYTES = MXFP4_BLOCK // 2
_CHUNK = 1 << 13  # blocks worked on at once: temporaries of 1 MiB stay in the caches


def pack(array: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Round an array to MXFP4.

    Args:
        array: finite numbers (..., C) with C a multiple of 32; float16, float32 and float64 are
            rounded once, straight from their own precision.

    Returns:
        blocks: uint8 (..., C/32, 16).
        scales: uint8 (..., C/32); 0 for a block of zeros.

    Raises:
        CheckpointError: a value is NaN or infinite, or C is not a multiple of 32.
    """
    array = np.asarray(array)
    if array.ndim == 0 or array.shape[-1] % MXFP4_BLOCK:
        raise CheckpointError(
            f"MXFP4 shares a scale between {MXFP4_BLOCK} values of the last axis, so it must be a "
            f"multiple of {MXFP4_BLOCK}; the shape is {array.shape}"
        )
    grid = (*array.shape[:-1], array.shape[-1] // MXFP4_BLOCK)
    flat = array.reshape(-1, MXFP4_BLOCK)  # (N, 32)
    blocks = np.empty((len(flat), _BYTES), np.uint8)
    scales = np.empty(len(flat), np.uint8)
    for start in range(0, len(flat), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        scales[chunk], codes = _quantize(_as_float(flat[chunk]), start, array.shape)
        blocks[chunk] = codes[:, 0::2] | (codes[:, 1::2] << 4)  # (n, 16)
    return blocks.reshape(*grid, _BYTES), scales.reshape(grid)


def unpack(
    blocks: NDArray[np.uint8], scales: NDArray[np.uint8], *, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """Expand MXFP4 to numbers, exactly.

    Args:
        blocks: uint8 (..., G, 16).
        scales: uint8 (..., G).
        dtype: float32 or float64. Values from 2**128 (scales 253 and 254 only) exceed float32, as
            they exceed bfloat16, and become infinite; float64 holds them all.

    Returns:
        An array (..., G * 32) of `dtype`.

    Raises:
        CheckpointError: shapes or types do not match, or a scale is 255, which means NaN.
        UsageError: another `dtype`.
    """
    blocks, scales = np.asarray(blocks), np.asarray(scales)
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise UsageError(f"mxfp4.unpack makes float32 or float64, not {kind}")
    _check_pair(blocks, scales)
    check_scales(scales)
    pairs = _pair_table(kind)
    powers = np.ldexp(np.ones(NAN_SCALE, kind), np.arange(NAN_SCALE) - _BIAS)
    flat_blocks, flat_scales = blocks.reshape(-1, _BYTES), scales.reshape(-1)
    out = np.empty((len(flat_scales), MXFP4_BLOCK), kind)
    for start in range(0, len(flat_scales), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        # mode="clip" only spares numpy a checked copy: a byte is always within the 256 pairs.
        np.take(pairs, flat_blocks[chunk], out=out[chunk].view(pairs.dtype), mode="clip")
        with np.errstate(over="ignore"):
            out[chunk] *= powers[flat_scales[chunk], None]  # (n, 32)
    return out.reshape(*blocks.shape[:-2], blocks.shape[-2] * MXFP4_BLOCK)


def check_scales(scales: NDArray[np.uint8], *, where: str = "MXFP4 scales") -> None:
    """Refuse the scale 255, which means that all 32 values of its block are NaN.

    Args:
        scales: uint8 of any shape.
        where: what to call the array in the message, such as a tensor's name.

    Raises:
        CheckpointError: naming the first place.
    """
    bad = scales == NAN_SCALE
    if bad.any():
        first = [int(axis[0]) for axis in np.nonzero(bad)]
        raise CheckpointError(
            f"{where}: the scale at {first} is 255, which is NaN "
            f"({int(bad.sum())} of {scales.size} scales); the file is damaged or was quantised "
            f"from NaN values: download or quantise it again"
        )


def _check_pair(blocks: NDArray[Any], scales: NDArray[Any]) -> None:
    """Refuse arrays that do not belong together."""
    if blocks.dtype != np.uint8 or scales.dtype != np.uint8:
        raise CheckpointError(
            f"MXFP4 blocks and scales are uint8, not {blocks.dtype} and {scales.dtype}"
        )
    if blocks.ndim < 2 or blocks.shape[-1] != _BYTES or blocks.shape[:-1] != scales.shape:
        raise CheckpointError(
            f"MXFP4 blocks have the shape of their scales and {_BYTES} more (bytes), "
            f"but the blocks are {blocks.shape} and the scales {scales.shape}"
        )


def _as_float(chunk: NDArray[Any]) -> NDArray[Any]:
    """float32 and float64 as they are, float16 widened, any other number as float64."""
    if chunk.dtype in (np.float32, np.float64):
        return chunk
    return chunk.astype(np.float32 if chunk.dtype == np.float16 else np.float64)


def _quantize(
    values: NDArray[Any], first_block: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(n, 32) numbers -> scales (n,) and codes (n, 32)."""
    magnitude = np.abs(values)  # (n, 32)
    largest = magnitude.max(axis=1)  # (n,)
    if not np.isfinite(largest).all():
        row, column = (int(axis[0]) for axis in np.nonzero(~np.isfinite(magnitude)))
        index = np.unravel_index((first_block + row) * MXFP4_BLOCK + column, shape)
        raise CheckpointError(
            f"MXFP4 cannot hold {values[row, column]}, found at {[int(i) for i in index]}: "
            "weights must be finite"
        )
    # frexp: largest = fraction * 2**exponent with fraction in [1/2, 1), so floor(log2) is one less.
    exponent = np.frexp(largest)[1] - 1 - _LARGEST_EXPONENT
    scale = np.where(largest > 0, np.clip(exponent + _BIAS, 0, NAN_SCALE - 1), 0)
    scaled = np.ldexp(magnitude, (_BIAS - scale)[:, None].astype(np.int32))
    # Midpoints between neighbours; a tie goes to the code whose last bit is 0.
    codes = (scaled > 0.25).view(np.uint8)
    for above, tie_goes_up in ((0.75, 1), (1.25, 0), (1.75, 1), (2.5, 0), (3.5, 1), (5.0, 0)):
        codes += (scaled >= above if tie_goes_up else scaled > above).view(np.uint8)
    codes |= np.signbit(values).view(np.uint8) << 3
    return scale.astype(np.uint8), codes


def _pair_table(dtype: np.dtype[Any]) -> NDArray[Any]:
    """(256,): the two values that a byte holds, low nibble first, as one complex number."""
    values = np.array([*VALUES, *(-value for value in VALUES)], dtype)
    byte = np.arange(256)
    pairs = np.stack([values[byte & 15], values[byte >> 4]], axis=1)  # (256, 2)
    return pairs.view(np.result_type(dtype, np.complex64))[:, 0]
