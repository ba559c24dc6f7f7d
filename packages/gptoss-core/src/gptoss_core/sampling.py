"""From logits to a token: a row of small steps over a whole batch, on the device of the logits.

```
logits (B, V) ─► grammar mask ─► thermostat ─► penalties ─► temperature ─► top-k ─► top-p ─► min-p
              ─► sample
```

Each step is a function `(logits, batch) -> logits`; a step that no row of the batch asks for
returns its input untouched and costs nothing. The thermostat is an empty slot that research fills
(`pipeline(thermostats)`); it sees the masked logits before anything else changes them.

A token is drawn by inverting the cumulative distribution at one random number. That number is a
hash of the request's seed and of how many tokens it has drawn, so a request gets the same draws
whatever else runs beside it, on every device. `docs/explanation/sampling.md` has the argument.

Legend: B rows (requests), V vocabulary, K candidates, W = ceil(V / 32) words of a bit mask.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptoss_harmony.engine import Constraint, Sampling
from gptoss_harmony.errors import EngineError

WEIGHT_BITS = 36  # a token of weight 1 is 2^-36 as likely as the best one
DRAW_BITS = 36  # random bits per token
COARSE_BITS = 27  # how the total weight is split so that its products with a draw fit 63 bits
NUCLEUS_GUESSES = (1024, 16_384)  # candidates that top-p looks at before it sorts everything
COLDEST = 1e-6  # lower temperatures would overflow float32 and choose the same token


class LogitsStep(Protocol):
    """One step of the pipeline; returns new logits, or the same tensor where nothing changes."""

    def __call__(self, logits: Tensor, batch: SamplingBatch) -> Tensor:
        """Map float32 logits (B, V) to float32 logits (B, V)."""
        ...


class SamplingRow:
    """What one request brings to a batch: settings, constraint, random numbers, token counts.

    Args:
        sampling: the request's settings.
        prompt: its prompt, which the repetition penalty counts as seen.
        vocab_size: V.
        device: where the logits will be.
        constraint: what the answer must obey, or None.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        *,
        vocab_size: int,
        device: torch.device,
        constraint: Constraint | None = None,
    ) -> None:
        self.sampling = sampling
        self.constraint = constraint
        self.seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        self.drawn = 0
        self.counts: Tensor | None = None  # (V,) how often each token was generated
        self.seen: Tensor | None = None  # (V,) whether it is in the prompt or the answer
        if sampling.presence_penalty or sampling.frequency_penalty:
            self.counts = torch.zeros(vocab_size, device=device)
        if sampling.repetition_penalty != 1.0:
            self.seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self.seen[torch.tensor(list(prompt), dtype=torch.long, device=device)] = True

    def draw(self) -> int:
        """The random number of the next token: a function of seed and position alone."""
        digest = hashlib.blake2b(f"{self.seed}:{self.drawn}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> (64 - DRAW_BITS)

    def accept(self, token: int) -> None:
        """Advance past a chosen token."""
        self.drawn += 1
        if self.counts is not None:
            self.counts[token] += 1
        if self.seen is not None:
            self.seen[token] = True
        if self.constraint is not None:
            self.constraint.accept(token)


class SamplingBatch:
    """The rows of one step and their settings as tensors, built once for as long as the rows stay.

    Attributes:
        rows: one per row of the logits.
        device: where the tensors live.
        failures: rows that cannot be sampled and why; filled by the steps, cleared by `choose`.
    """

    def __init__(self, rows: Sequence[SamplingRow], device: torch.device) -> None:
        self.rows = tuple(rows)
        self.device = device
        self.failures: dict[int, EngineError] = {}
        self._columns: dict[str, Tensor] = {}

    def which(self, wanted: Callable[[SamplingRow], bool]) -> list[int]:
        """Indices of the rows that a step applies to."""
        return [index for index, row in enumerate(self.rows) if wanted(row)]

    def column(self, name: str) -> Tensor:
        """The rows' values of a `Sampling` field, float32 (B, 1)."""
        if name not in self._columns:
            values = [float(getattr(row.sampling, name)) for row in self.rows]
            self._columns[name] = torch.tensor(values, device=self.device).unsqueeze(1)  # (B, 1)
        return self._columns[name]


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome of a step.

    Attributes:
        tokens: one id per row; meaningless for a row that failed.
        failures: by row, why no token could be chosen.
    """

    tokens: list[int]
    failures: dict[int, EngineError] = field(default_factory=dict)


def choose(logits: Tensor, batch: SamplingBatch, steps: Sequence[LogitsStep]) -> Choice:
    """Run the pipeline and choose one token per row.

    A row whose every token is forbidden, or whose logits are not numbers, fails alone.

    Args:
        logits: float32 (B, V), left as they are.
        batch: the B rows. The caller reports the tokens it uses with `SamplingRow.accept`.
        steps: from `pipeline`.
    """
    batch.failures.clear()
    for step in steps:
        logits = step(logits, batch)
    best = logits.amax(-1)  # (B,)
    tokens = sample(logits, batch)  # (B,)
    chosen, usable = torch.stack([tokens, torch.isfinite(best).long()]).tolist()
    failures = dict(batch.failures)
    for row, fine in enumerate(usable):
        if not fine and row not in failures:
            failures[row] = _nothing_left(batch.rows[row])
    return Choice(chosen, failures)


def pipeline(thermostats: Sequence[LogitsStep] = ()) -> tuple[LogitsStep, ...]:
    """The steps in their order, with what research puts into the thermostat's slot."""
    return (grammar_mask, *thermostats, penalties, temperature, top_k, top_p, min_p)


def grammar_mask(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """Forbid what the rows' constraints do not allow."""
    vocab_size = logits.shape[1]
    masks = {}
    for index in batch.which(lambda row: row.constraint is not None):
        words = np.zeros(math.ceil(vocab_size / 32), dtype=np.int32)  # (W,)
        try:
            constraint = batch.rows[index].constraint
            if constraint is not None and constraint.fill(words):
                masks[index] = _forbidden(words, vocab_size, batch.device)
        except Exception as error:  # a stranger's code: its failure is this request's, not ours
            batch.failures[index] = EngineError(f"the constraint failed: {error}")
            batch.failures[index].__cause__ = error
    if not masks:
        return logits
    logits = logits.clone()
    for index, forbidden in masks.items():
        logits[index].masked_fill_(forbidden, -torch.inf)
    return logits


def _forbidden(words: NDArray[np.int32], vocab_size: int, device: torch.device) -> Tensor:
    """Turn a bit mask of allowed tokens, int32 (W,), into bool (V,) of the forbidden ones.

    The packed words travel to the device (25 kB), not the mask (200 kB).
    """
    packed = torch.from_numpy(words.view(np.uint8)).to(device)  # (4 W,)
    bits = torch.arange(8, dtype=torch.uint8, device=device)  # (8,)
    allowed = (packed.unsqueeze(1) >> bits) & 1  # (4 W, 8)
    return allowed.flatten()[:vocab_size] == 0  # (V,)


def penalties(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """Make tokens that were already used less likely: repetition, then frequency and presence."""
    rows = batch.which(lambda row: row.counts is not None or row.seen is not None)
    if not rows:
        return logits
    logits = logits.clone()
    for index in rows:
        row, sampling = batch.rows[index], batch.rows[index].sampling
        if row.seen is not None:
            factor = sampling.repetition_penalty
            penalised = torch.where(
                logits[index] > 0, logits[index] / factor, logits[index] * factor
            )
            logits[index] = torch.where(row.seen, penalised, logits[index])
        if row.counts is not None:
            logits[index] -= sampling.frequency_penalty * row.counts
            logits[index] -= sampling.presence_penalty * (row.counts > 0)
    return logits


def temperature(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """Divide by the temperature; the largest logit is moved to 0 first, so nothing overflows."""
    if not batch.which(lambda row: row.sampling.temperature not in (0.0, 1.0)):
        return logits
    values = batch.column("temperature")  # (B, 1)
    values = torch.where(values == 0, 1.0, values).clamp_min(COLDEST)
    return (logits - logits.amax(-1, keepdim=True)) / values


def top_k(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """Keep the k largest logits of each row that limits them."""
    vocab_size = logits.shape[1]
    rows = batch.which(lambda row: _random(row) and 0 < row.sampling.top_k < vocab_size)
    if not rows:
        return logits
    index = torch.tensor(rows, device=batch.device)
    limits = batch.column("top_k")[index]  # (R, 1)
    widest = max(batch.rows[row].sampling.top_k for row in rows)
    values, ids = logits[index].topk(widest)  # (R, K)
    keep = torch.arange(widest, device=batch.device) < limits  # (R, K)
    return _keep_only(logits, index, values=values, ids=ids, keep=keep)


def top_p(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """Keep the smallest set of tokens whose probability reaches p.

    The likeliest `NUCLEUS_GUESSES` tokens nearly always hold it, and finding them costs a fraction
    of a sort; where they do not, the whole vocabulary is sorted.
    """
    vocab_size = logits.shape[1]
    rows = batch.which(lambda row: _random(row) and row.sampling.top_p < 1.0)
    if not rows:
        return logits
    index = torch.tensor(rows, device=batch.device)
    reach = batch.column("top_p")[index]  # (R, 1)
    chosen = logits[index]  # (R, V)
    total = torch.logsumexp(chosen, -1, keepdim=True)  # (R, 1)
    for width in (*(guess for guess in NUCLEUS_GUESSES if guess < vocab_size), vocab_size):
        values, ids = chosen.topk(width)  # (R, K), largest first
        probabilities = torch.exp(values - total)
        cumulative = probabilities.cumsum(-1)
        if width == vocab_size or bool((cumulative[:, -1:] >= reach).all()):
            break
    keep = cumulative - probabilities < reach  # a token stays if those before it fall short
    return _keep_only(logits, index, values=values, ids=ids, keep=keep)


def min_p(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """Drop tokens less likely than a share of the likeliest one."""
    if not batch.which(lambda row: _random(row) and row.sampling.min_p > 0.0):
        return logits
    least = logits.amax(-1, keepdim=True) + batch.column("min_p").log()  # (B, 1)
    return logits.masked_fill(logits < least, -torch.inf)


def sample(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """Choose one token per row: the likeliest at temperature 0, else at random.

    Weights are exp(logit - best) as integers of `WEIGHT_BITS` bits. Integer sums are exact in any
    order, so the cumulative distribution never falls, a token of weight 0 is never drawn, and a
    batch, another device or another number of threads changes nothing.

    Returns:
        int64 (B,). Rows without a finite logit get an arbitrary valid id.
    """
    greedy = logits.argmax(-1)  # (B,), the first of equals
    if not batch.which(_random):
        return greedy
    best = logits.amax(-1, keepdim=True)  # (B, 1)
    weights = (torch.exp(logits - best) * 2.0**WEIGHT_BITS).long()  # (B, V)
    cumulative = weights.cumsum(-1)  # (B, V)
    draws = torch.tensor([row.draw() for row in batch.rows], device=batch.device)
    target = _scale(cumulative[:, -1], draws).unsqueeze(1)  # (B, 1)
    drawn = torch.searchsorted(cumulative, target, right=True).squeeze(1)  # (B,)
    drawn = drawn.clamp_max(logits.shape[1] - 1)
    random = torch.tensor([_random(row) for row in batch.rows], device=batch.device)
    return torch.where(random, drawn, greedy)


def _scale(total: Tensor, draws: Tensor) -> Tensor:
    """Map draws in [0, 2^DRAW_BITS) to [0, total), int64 (B,), in integers.

    total < 2^(36 + 18) times a draw does not fit 63 bits, so total = coarse · 2^27 + fine.
    """
    coarse, fine = total >> COARSE_BITS, total & ((1 << COARSE_BITS) - 1)
    return (coarse * draws >> (DRAW_BITS - COARSE_BITS)) + (fine * draws >> DRAW_BITS)


def _random(row: SamplingRow) -> bool:
    """Whether a row draws at random; greedy rows need no candidates cut."""
    return row.sampling.temperature > 0.0


def _keep_only(
    logits: Tensor, rows: Tensor, *, values: Tensor, ids: Tensor, keep: Tensor
) -> Tensor:
    """Forbid everything in `rows` but the candidates (R, K) marked in `keep`."""
    kept = torch.full((len(rows), logits.shape[1]), -torch.inf, device=logits.device)  # (R, V)
    kept.scatter_(1, ids, values.masked_fill(~keep, -torch.inf))
    return logits.index_copy(0, rows, kept)  # (B, V)


def _nothing_left(row: SamplingRow) -> EngineError:
    if row.constraint is not None:
        return EngineError(
            "the constraint allows no token here; check that the grammar can be continued at every "
            "point and that it allows a stop token at its end"
        )
    return EngineError("the model's logits are not finite; the checkpoint may be damaged")
