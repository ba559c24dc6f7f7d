"""Log probabilities of tokens and of their likeliest alternatives, from the unmodified logits.

What is reported is the model's own distribution, natural log, before grammar, penalties or
temperature: the same number whether a token was generated or stood in the prompt.

Legend: N rows scored, V vocabulary, A alternatives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptoss_harmony.engine import TokenLogprob


def score(
    logits: Tensor, tokens: Sequence[int], alternatives: Sequence[int | None]
) -> list[TokenLogprob | None]:
    """Score one token per row.

    Args:
        logits: float32 (N, V), as the model gave them.
        tokens: the N ids to score.
        alternatives: for each row how many of the likeliest tokens to list; None skips the row.

    Returns:
        One entry per row, None for a skipped one.
    """
    rows = [row for row, count in enumerate(alternatives) if count is not None]
    scores: list[TokenLogprob | None] = [None] * len(tokens)
    if not rows:
        return scores
    if len(rows) < len(tokens):
        logits = logits[torch.tensor(rows, device=logits.device)]  # (N, V)
    total = torch.logsumexp(logits, -1, keepdim=True)  # (N, 1)
    ids = torch.tensor([[tokens[row]] for row in rows], device=logits.device)  # (N, 1)
    chosen = (logits.gather(1, ids) - total).squeeze(1).tolist()
    widest = max(alternatives[row] or 0 for row in rows)
    values, top_ids = logits.topk(min(widest, logits.shape[1]))  # (N, A)
    listed, names = (values - total).tolist(), top_ids.tolist()
    for place, row in enumerate(rows):
        top = tuple(zip(names[place], listed[place], strict=True))[: alternatives[row]]
        scores[row] = TokenLogprob(tokens[row], min(0.0, chosen[place]), top)
    return scores
