"""Launching a compiled kernel with little work on the host.

Triton binds, types and hashes every argument at every launch, and looks each pointer up in the
driver: 10 to 20 microseconds, some 200 times a step that runs without a graph. A kernel under
`quick` does that once for each kind of arguments and keeps what was compiled.

    @quick
    @triton.jit
    def _twice(x, out, size, BLOCK: tl.constexpr): ...

    _twice[(4,)](x, out, 1000, BLOCK=256, num_warps=4)   # as without `quick`

What may change the code that Triton compiles is the key: each tensor's dtype and whether it starts
at a multiple of 16 bytes, each number's value, each option. So a number that differs between
launches costs Triton's own path once for every value; unless it is listed in `do_not_specialize`
it also costs a compilation now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import triton
from triton.runtime import driver

NUMBERS = frozenset((int, float, bool))  # arguments that are passed as they are; others: tensors


class Quick:
    """A kernel that remembers what it was compiled to.

    The first argument must be a tensor, compile-time arguments come last and by name, and an
    argument is of one type in all launches (1, 1.0 and True are one key). The device of the tensors
    must be the current one. Triton's hooks around launches, which profilers set, are called for
    the first launch of a kind alone.

    Args:
        kernel: what `triton.jit` returned.
    """

    def __init__(self, kernel: triton.JITFunction[Any]) -> None:
        self.kernel = kernel
        constants = [parameter.is_constexpr for parameter in kernel.params]
        assert constants == sorted(constants)  # so that `_launch` can append them
        self._constants = (None,) * sum(constants)  # the compiled kernel ignores these
        self._known: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._stream: Callable[[int], int] | None = None

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """Called as Triton's kernels are."""
        return partial(self._launch, grid)

    def _launch(self, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        values, kinds = [], []
        for arg in args:
            if type(arg) in NUMBERS:
                values.append(arg)
                kinds.append(arg)
            else:
                address = arg.data_ptr()
                values.append(address)
                kinds.append(arg.dtype)
                if address % 16:
                    kinds.append(None)
        device = args[0].get_device()
        key = (device, *kinds, *options.items())
        known = self._known.get(key)
        if known is None or self._stream is None:
            compiled = self.kernel[grid](*args, **options)
            # The compiled kernel itself too: its module is unloaded with it.
            self._known[key] = (
                compiled.run, compiled.function, compiled.packed_metadata, compiled
            )  # fmt: skip
            self._stream = driver.active.get_current_stream
            return
        run, function, metadata, _ = known
        x, y, z = (*grid, 1, 1)[:3]
        run(
            x, y, z, self._stream(device), function, metadata, None, None, None,
            *values, *self._constants,
        )  # fmt: skip


def quick(kernel: Any) -> Any:
    """Wrap a kernel; one of the interpreter stays as it is."""
    return Quick(kernel) if isinstance(kernel, triton.JITFunction) else kernel
