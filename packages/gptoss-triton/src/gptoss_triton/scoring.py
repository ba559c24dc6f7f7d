"""Log probabilities of a prompt's own tokens, from the rows of a step that read it.

The logits of a whole chunk would take gigabytes, so the unembedding runs over a few rows at a time
and only what was asked for is kept.

Dimensions: n rows, V vocabulary rows, k alternatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_harmony.engine import TokenLogprob
from gptoss_triton.model import Model, Stream
from gptoss_triton.request import Request

ROWS = 32  # of logits at once: 26 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScores:
    """Scores of consecutive prompt tokens.

    Attributes:
        request: whose prompt it is.
        first: position of the first scored token.
        tokens: the scored tokens.
        logprobs: (n,) float32, natural log.
        top_tokens: (n, k) int64, best first.
        top_logprobs: (n, k) float32.
    """

    request: Request
    first: int
    tokens: list[int]
    logprobs: Tensor
    top_tokens: Tensor
    top_logprobs: Tensor

    def deliver(self) -> None:
        """Hand the scores, which must have reached the host, to the request."""
        rows = zip(
            self.tokens,
            self.logprobs.tolist(),
            self.top_tokens.tolist(),
            self.top_logprobs.tolist(),
            strict=True,
        )
        self.request.score(
            self.first,
            [
                TokenLogprob(token, min(0.0, logprob), tuple(zip(ids, values, strict=True)))
                for token, logprob, ids, values in rows
            ],
        )


def score_rows(
    model: Model, stream: Stream, first: int, tokens: Tensor, *, top: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Score the tokens that follow consecutive rows of a step.

    Args:
        model: for its unembedding.
        stream: what its layers made of the step.
        first: first of the rows.
        tokens: (n,) int64, the token after each row.
        top: k.

    Returns:
        (n,) float32 log probabilities, (n, k) int64 and (n, k) float32 alternatives.
    """
    logprobs, ids, values = [], [], []
    for start in range(0, tokens.numel(), ROWS):
        wanted = tokens[start : start + ROWS]
        used = wanted.numel()
        # Always as many rows, the last one again and again: PyTorch's sums depend on their number.
        rows = torch.arange(ROWS, device=tokens.device).clamp(max=used - 1) + (first + start)
        logits = model.logits(stream, rows)
        whole = logits.logsumexp(-1, keepdim=True)[:used]
        logits = logits[:used]
        likeliest = logits.topk(top)
        logprobs.append((logits.gather(1, wanted[:, None]) - whole).squeeze(1))
        ids.append(likeliest.indices)
        values.append(likeliest.values - whole)
    return torch.cat(logprobs), torch.cat(ids), torch.cat(values)
