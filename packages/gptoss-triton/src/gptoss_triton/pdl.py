# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Programmatic dependent launch: a kernel starts while the one before it drains.

Every kernel of a chain calls `wait_previous` before it touches what another kernel wrote (or
still reads), and `release_next` right after, so that the next kernel's programs can take free
places and fetch their weights into the cache early.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import cuda


@triton.jit
def wait_previous(PDL: tl.constexpr):
    """Block until all kernels before this one have finished and their writes are visible."""
    if PDL:
        cuda.gdc_wait()


@triton.jit
def release_next(PDL: tl.constexpr):
    """Let the next kernel start as soon as it finds room."""
    if PDL:
        cuda.gdc_launch_dependents()


@triton.jit
def prefetch_lines(rows, elements, LINES: tl.constexpr):
    """Ask for the first 128-byte lines of some rows of 2-byte elements; nothing is read.

    Args:
        rows: (R, 1) pointers to the rows.
        elements: length of a row.
        LINES: lines of each row, a power of two; 0 asks for none.
    """
    if LINES > 0:
        line = tl.minimum(tl.arange(0, LINES) * 64, elements - 1)
        tl.inline_asm_elementwise(
            asm="prefetch.global.L2 [$1]; mov.u32 $0, 0;",
            constraints="=r,l",
            args=[rows + line[None, :]],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
