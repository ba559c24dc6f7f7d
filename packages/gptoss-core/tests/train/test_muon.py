from __future__ import annotations

import pytest
import torch

from gptoss_core.train.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 48, 16), (2, 16, 48)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices).float())
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.4


def test_stacks_and_single_matrices_are_updated_alike() -> None:
    generator = torch.Generator().manual_seed(1)
    start, gradient = (torch.randn(2, 8, 4, generator=generator) for _ in range(2))
    stack = torch.nn.Parameter(start.clone())
    parts = [torch.nn.Parameter(matrix.clone()) for matrix in start]
    stack.grad = gradient.clone()
    for part, grad in zip(parts, gradient, strict=True):
        part.grad = grad.clone()
    Muon([stack], lr=0.1).step()
    Muon(parts, lr=0.1).step()
    assert torch.allclose(stack, torch.stack(list(parts)), atol=1e-5)
    assert not torch.allclose(stack, start)
