"""Rows that sample in another way than temperature alone: masks, penalties, top-k, top-p, min-p.

The plain draw of a step has already chosen a token for every row, inside the graph. Rows of this
kind get a copy of their logits, changed in the contract's order (mask, penalties, then thresholds),
and are drawn again into the same slot, before the next step reads it. The other rows never notice.

Dimensions: L special rows, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gptoss_triton.errors import ConstraintFailed
from gptoss_triton.launch import Launch
from gptoss_triton.request import Request
from gptoss_triton.sample import allow, draw, thresholds
from gptoss_triton.slots import Slots


def masks_of(requests: Sequence[Request], vocabulary: int) -> dict[int, Tensor]:
    """Ask the constraints what they allow next, before anything is launched.

    Args:
        requests: those that draw in the coming step.
        vocabulary: V.

    Returns:
        (ceil(V/32),) int32 words by sequence number, of the requests that are bound now.

    Raises:
        ConstraintFailed: a constraint raised, or allows no token.
    """
    masks = {}
    for request in requests:
        if request.constraint is None:
            continue
        row = np.zeros(-(-vocabulary // 32), np.int32)
        try:
            bound = request.constraint.fill(row)
        except Exception as error:
            raise ConstraintFailed(
                f"the constraint failed: {error}", request.sequence.number
            ) from error
        if bound and not row.any():
            raise ConstraintFailed(
                "the constraint allows no token here; check that the grammar can be continued at "
                "every point",
                request.sequence.number,
            )
        if bound:
            masks[request.sequence.number] = torch.from_numpy(row)
    return masks


def draw_special(
    rows: Sequence[tuple[int, Request]],
    masks: Mapping[int, Tensor],
    logits: Tensor,
    positions: Tensor,
    slots: Slots,
    *,
    launch: Launch,
) -> None:
    """Draw some rows again.

    Args:
        rows: (row of `logits`, its request).
        masks: from `masks_of`.
        logits: (n, V) of the step, unchanged by this.
        positions: (n,) int32.
        slots: settings; the drawn tokens land there.
        launch: of the draw.
    """
    lines = slots.send([row for row, _ in rows])
    where = slots.send([request.sequence.slot for _, request in rows])
    adjusted = logits[lines.long()]  # (L, V), a copy
    numbers = [request.sequence.number for _, request in rows]
    bound = [line for line, number in enumerate(numbers) if number in masks]
    if bound:
        words = slots.there(torch.stack([masks[numbers[line]] for line in bound]))
        allow(adjusted, words, slots.send(bound))
    for line, (_, request) in enumerate(rows):
        if request.penalised:
            _penalise(adjusted[line], request, slots)
    if any(request.filtered for _, request in rows):
        thresholds(adjusted, where, slots.draw)
    draw(adjusted, logits, lines, where, positions, slots.draw, launch=launch)


def _penalise(row: Tensor, request: Request, slots: Slots) -> None:
    """Apply the three penalties to one line, in place."""
    sampling, answered = request.sampling, request.answered
    if sampling.repetition_penalty != 1.0:
        seen = slots.send(sorted(set(request.sequence.tokens))).long()
        value = row[seen]
        factor = sampling.repetition_penalty
        row[seen] = torch.where(value > 0, value / factor, value * factor)
    if answered and (sampling.presence_penalty or sampling.frequency_penalty):
        tokens = slots.send(list(answered)).long()
        counts = slots.send(list(answered.values())).float()
        row[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
