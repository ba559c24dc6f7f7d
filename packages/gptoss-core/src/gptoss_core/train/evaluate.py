"""Held-out loss and next-token accuracy, overall and by position class.

```
{"loss": 0.21, "accuracy": 0.94, "syntax": 0.99, "key": 0.97, "first": 0.88, "later": 0.95, ...}
```
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from gptoss_core.train.batches import Batch
from gptoss_core.train.documents import CLASSES
from gptoss_core.train.forward import Forward
from gptoss_core.train.loss import cross_entropy
from gptoss_core.train.parameters import Parameters


def evaluate(
    forward: Forward,
    parameters: Parameters,
    batches: Iterable[Batch],
    *,
    quantised: bool,
    every_row: bool = False,
) -> dict[str, float]:
    """Mean loss in nats and accuracy over the targets of all batches.

    Args:
        forward: the model's forward pass.
        parameters: its weights.
        batches: on any device.
        quantised: use the weights as they would be saved.
        every_row: let the frozen rows of the whole vocabulary compete, not only the candidates.

    Gradients stay enabled: compiled layers are specialised on that, and would be compiled twice.
    """
    device = parameters.rows.device
    loss, count = 0.0, 0
    right_by_class = torch.zeros(len(CLASSES), device=device)
    count_by_class = torch.zeros(len(CLASSES), device=device)
    for batch in batches:
        batch = batch.to(device)
        if not len(batch.targets):
            continue
        weights = parameters.weights(batch.candidates, quantised=quantised)
        states, _ = forward.hidden(weights, batch.tokens, batch.documents)
        states, rows = states.detach(), weights["unembedding.weight"].detach()
        if every_row:
            # Trained rows stand twice, at their ids as frozen: those copies must not win.
            frozen = parameters.frozen["unembedding.weight"].clone()
            frozen[parameters.rows] = 0
            frozen[batch.candidates] = 0
            rows = torch.cat([rows, frozen])
        part, right = cross_entropy(states.flatten(0, 1)[batch.positions], rows, batch.targets)
        loss += float(part)
        count += len(right)
        classes = batch.classes.long().clamp(max=len(CLASSES) - 1)
        right_by_class.index_add_(0, classes, right.float())
        count_by_class.index_add_(0, classes, torch.ones_like(right, dtype=torch.float32))
    result = {"loss": loss / max(1, count), "tokens": float(count)}
    result["accuracy"] = float(right_by_class.sum()) / max(1, count)
    for name, right_count, total in zip(CLASSES, right_by_class, count_by_class, strict=True):
        if total > 0 and name != "prompt":
            result[name] = float(right_count / total)
    return result
