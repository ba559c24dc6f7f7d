"""Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon): momentum, orthogonalised.

The update of a matrix is its momentum with all singular values brought near 1 by five steps of a
Newton-Schulz iteration; the learning rate is then a spectral norm per step. Matrices of one shape
are worked on together, experts included: (E, O, J) is E matrices.

    optimizer = Muon(matrices, lr=0.01)
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, from the reference implementation
STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum.

    Args:
        params: matrices, or stacks of matrices on the last two axes.
        lr: learning rate; an update has spectral norm about lr * sqrt(max(1, O / J)).
        momentum: of the gradient's running mean.
        weight_decay: decoupled, times lr.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    shapes.setdefault(tuple(param.shape[-2:]), []).append(param)
            for params in shapes.values():
                self._step_shape(params, group)

    def _step_shape(self, params: list[Tensor], group: dict[str, float]) -> None:
        """Update parameters whose matrices have one shape."""
        rows, columns = params[0].shape[-2:]
        momenta = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in params]
        grads = [p.grad for p in params if p.grad is not None]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov
        stack = torch.cat([matrix.reshape(-1, rows, columns) for matrix in ahead])
        counts = [matrix.numel() // (rows * columns) for matrix in ahead]
        updates = torch.split(orthogonalize(stack), counts)
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        shaped = [u.reshape(p.shape).to(p.dtype) for u, p in zip(updates, params, strict=True)]
        torch._foreach_add_(params, shaped, alpha=-rate)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring the singular values of each (O, J) matrix of a stack (S, O, J) near 1, in bf16."""
    a, b, c = COEFFICIENTS
    x: Tensor = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
