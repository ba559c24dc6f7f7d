from types import SimpleNamespace

import pytest
import torch
import triton
import triton.language as tl

from gptoss_triton import quick as module
from gptoss_triton.quick import Quick, quick


@quick
@triton.jit
def _scaled(x, out, size, factor, BLOCK: tl.constexpr):
    """Multiply by a number."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < size, other=0.0)
    tl.store(out + place, (value * factor).to(out.dtype.element_ty), mask=place < size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kind_of_arguments_is_computed_right(place, dtype):
    if place.device.type == "cpu":
        dtype = torch.float32
    whole = place.random(1100, dtype=dtype)
    for _ in range(2):
        for first in (0, 1, 8):  # one that is not aligned
            for size in (1, 16, 1000):
                for factor in (2.0, 0.5):
                    x = whole[first : first + 1050]
                    out = torch.zeros_like(x)
                    _scaled[(5,)](x, out, size, factor, BLOCK=256)
                    assert torch.equal(out[:size], x[:size] * factor)
                    assert not out[size:].any()


class Recorder:
    """Stands for a jitted kernel of two tensors, two numbers and a compile-time argument."""

    def __init__(self):
        self.params = [SimpleNamespace(is_constexpr=name == "BLOCK") for name in "abcd"]
        self.params.append(SimpleNamespace(is_constexpr=True))
        self.compiled, self.launched = [], []

    def __getitem__(self, grid):
        def start(*args, **options):
            self.compiled.append((grid, args, options))
            return SimpleNamespace(
                run=lambda *all_: self.launched.append(all_), function=7, packed_metadata=(4, 1, 0)
            )

        return start


@pytest.fixture
def recorder(monkeypatch):
    driver = SimpleNamespace(active=SimpleNamespace(get_current_stream=lambda device: 11))
    monkeypatch.setattr(module, "driver", driver)
    return Recorder()


def test_a_second_launch_goes_straight_to_the_compiled_kernel(recorder):
    kernel, x, out = Quick(recorder), torch.zeros(64), torch.zeros(64, dtype=torch.bfloat16)
    for size in (5, 5):
        kernel[(2, 3)](x, out, size, 0.5, BLOCK=16, num_warps=4)
    assert recorder.compiled == [((2, 3), (x, out, 5, 0.5), {"BLOCK": 16, "num_warps": 4})]
    addresses = (x.data_ptr(), out.data_ptr())
    assert recorder.launched == [
        (2, 3, 1, 11, 7, (4, 1, 0), None, None, None, *addresses, 5, 0.5, None)
    ]


def test_whatever_may_change_the_code_is_compiled_anew(recorder):
    kernel, x, out = Quick(recorder), torch.zeros(64), torch.zeros(64)
    launches = [
        ((x, out, 5, 0.5), {"BLOCK": 16}),
        ((x, out, 6, 0.5), {"BLOCK": 16}),
        ((x, out, 5, 0.25), {"BLOCK": 16}),
        ((x, out, 5, 0.5), {"BLOCK": 32}),
        ((x, out, 5, 0.5), {"BLOCK": 16, "num_warps": 8}),
        ((x.bfloat16(), out, 5, 0.5), {"BLOCK": 16}),
        ((x[1:], out, 5, 0.5), {"BLOCK": 16}),
        ((x, out[1:], 5, 0.5), {"BLOCK": 16}),
    ]
    for _ in range(2):
        for args, options in launches:
            kernel[(1,)](*args, **options)
    assert len(recorder.compiled) == len(launches)
    assert len(recorder.launched) == len(launches)
    assert recorder.launched[6][9] == x[1:].data_ptr()
