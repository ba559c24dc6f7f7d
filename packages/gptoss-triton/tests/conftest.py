"""Kernels run in Triton's interpreter on a machine without a GPU, compiled on one with a GPU."""

import os
from dataclasses import dataclass

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined, so before any import


@dataclass(frozen=True)
class Place:
    """Where a kernel test runs, and how exact it can be there."""

    device: torch.device
    dtype: (
        torch.dtype
    )  # of operands; float32 in the interpreter, where only mistakes make a difference
    tolerance: float

    def random(self, *shape, scale=1.0, dtype=None):
        """Normal numbers, drawn afresh in every test run."""
        values = torch.randn(shape, dtype=torch.float32) * scale
        return values.to(self.device, dtype or self.dtype)

    def ints(self, values):
        return torch.as_tensor(values, dtype=torch.int32, device=self.device)

    def poisoned(self, *shape, dtype=None):
        return torch.full(shape, float("nan"), dtype=dtype or self.dtype, device=self.device)

    def close(self, actual, expected):
        actual, expected = actual.double().cpu(), expected.double().cpu()
        assert torch.isfinite(actual).all(), "unwritten or overflowed elements"
        error = (actual - expected).norm() / expected.norm().clamp_min(1e-30)
        assert error <= self.tolerance, f"relative error {error:.2e}"


@pytest.fixture(
    params=[
        pytest.param(
            "cpu",
            marks=pytest.mark.skipif(
                torch.cuda.is_available(), reason="with a GPU the kernels are compiled"
            ),
        ),
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
            ],
        ),
    ]
)
def place(request):
    torch.manual_seed(torch.seed() % 2**31)
    if request.param == "cpu":
        return Place(torch.device("cpu"), torch.float32, 1e-5)
    return Place(torch.device("cuda"), torch.float16, 2e-3)
