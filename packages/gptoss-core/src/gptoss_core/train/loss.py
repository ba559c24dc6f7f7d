"""Cross-entropy at chosen positions over the active rows of the vocabulary.

The model has 201,088 output rows; a fine-tuning set uses a few thousand of them. The softmax runs
over the rows in use (and, for nano, a sample of the others), and only at positions whose next token
is a target.

Dimensions: L targets, N model width, A active rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 1 << 29  # logits held at once: 2 GiB in float32


def cross_entropy(states: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss and which predictions are right.

    Args:
        states: (L, N) normed states at the chosen positions.
        rows: (A, N) active rows of the unembedding.
        targets: (L,) indices into `rows`.

    Returns:
        The sum of the losses in nats, float32, and (L,) bool: the target has the largest logit.
        Logits are recomputed in the backward pass, a chunk at a time.
    """
    size = max(1, CHUNK_ELEMENTS // rows.shape[0])
    parts = [
        checkpoint(_chunk, part, rows, wanted, use_reentrant=False)
        for part, wanted in zip(torch.split(states, size), torch.split(targets, size), strict=True)
    ]
    right = torch.cat([part[1] for part in parts])
    return torch.stack([part[0] for part in parts]).sum(), right


def _chunk(states: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = functional.linear(states, rows).float()  # (L, A)
    loss = functional.cross_entropy(logits, targets, reduction="sum")
    return loss, logits.detach().argmax(dim=-1) == targets
