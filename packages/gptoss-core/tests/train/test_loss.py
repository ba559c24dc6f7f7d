from __future__ import annotations

import pytest
import torch

from gptoss_core.train import loss


def test_active_rows_give_the_full_loss_restricted_to_them() -> None:
    states, table = torch.randn(20, 8), torch.randn(50, 8)
    active = torch.tensor([1, 4, 9, 30, 44])
    targets = torch.randint(0, 5, (20,))
    total, right = loss.cross_entropy(states, table[active], targets)
    logits = states @ table.T
    hidden = torch.full((50,), -torch.inf)
    hidden[active] = 0.0
    expected = torch.nn.functional.cross_entropy(logits + hidden, active[targets], reduction="sum")
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    assert torch.equal(right, (logits + hidden).argmax(-1) == active[targets])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    states = torch.randn(20, 8, requires_grad=True)
    rows, targets = torch.randn(6, 8), torch.randint(0, 6, (20,))
    whole, _ = loss.cross_entropy(states, rows, targets)
    [gradient] = torch.autograd.grad(whole, states)
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", 18)  # three positions at a time
    chunked, _ = loss.cross_entropy(states, rows, targets)
    [chunked_gradient] = torch.autograd.grad(chunked, states)
    assert torch.allclose(whole, chunked)
    assert torch.allclose(gradient, chunked_gradient)
