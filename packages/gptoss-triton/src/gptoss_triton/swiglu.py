# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The experts' activation on a tile: gate * sigmoid(1.702 gate) * (up + 1), both clamped first.

Rows of a tile come in groups of sixteen, eight gates and then their eight ups, as
`mxfp4.interleave_gate_up` orders them.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def swiglu_tile(acc, limit, ROWS: tl.constexpr, PAIRS: tl.constexpr):
    """Gates and ups, eight rows apart, to (ROWS / 2, PAIRS)."""
    gate, up = tl.split(acc.reshape(ROWS // 16, 2, 8, PAIRS).permute(0, 2, 3, 1))
    gate = tl.minimum(gate, limit)
    up = tl.minimum(tl.maximum(up, -limit), limit)
    value = gate / (1.0 + tl.exp(-1.702 * gate)) * (up + 1.0)
    return value.reshape(ROWS // 2, PAIRS)
