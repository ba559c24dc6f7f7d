# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Programmatic dependent launch: a kernel starts while the one before it drains.

Every kernel of a chain calls `release_next`, so that the next kernel's programs can take free
places and do what needs no results, and `wait_previous` before it touches what another kernel wrote
or still reads. The release comes first: whatever is computed ahead of it would otherwise have to
arrive before it. That is safe, because a kernel ends only after its own wait, and so whoever waits
for it waits for all before it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import cuda


@triton.jit
def release_next(PDL: tl.constexpr):
    """Let the next kernel start as soon as it finds room."""
    if PDL:
        cuda.gdc_launch_dependents()


@triton.jit
def wait_previous(PDL: tl.constexpr):
    """Block until all kernels before this one have finished and their writes are visible."""
    if PDL:
        cuda.gdc_wait()
