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

# Release before waiting: the next kernel's programs come even earlier, and nothing that uses a load
# stands between the wait and the loads after it. Also correct: a kernel ends only after its own
# wait, so whoever waits for it waits for all before it.
RELEASE_FIRST = tl.constexpr(False)


@triton.jit
def wait_previous(PDL: tl.constexpr):
    """Block until all kernels before this one have finished and their writes are visible."""
    if PDL:
        if RELEASE_FIRST:
            cuda.gdc_launch_dependents()
        cuda.gdc_wait()


@triton.jit
def release_next(PDL: tl.constexpr):
    """Let the next kernel start as soon as it finds room."""
    if PDL and not RELEASE_FIRST:
        cuda.gdc_launch_dependents()
