"""The sampling pipeline against a plain one that takes one row at a time, in Python floats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from gptoss_core.sampling import (
    DRAW_BITS,
    NUCLEUS_GUESSES,
    SamplingBatch,
    SamplingRow,
    choose,
    grammar_mask,
    min_p,
    penalties,
    pipeline,
    temperature,
    top_k,
    top_p,
)
from gptoss_harmony.engine import Constraint, Sampling
from gptoss_harmony.errors import EngineError
from gptoss_harmony.testing import AllowOnly

CPU = torch.device("cpu")
VOCAB = 77  # not a multiple of 32


def make_row(
    sampling: Sampling,
    prompt: Sequence[int] = (1, 2),
    answer: Sequence[int] = (),
    constraint: Constraint | None = None,
    vocab_size: int = VOCAB,
) -> SamplingRow:
    row = SamplingRow(sampling, prompt, vocab_size=vocab_size, device=CPU, constraint=constraint)
    for token in answer:
        row.accept(token)
    return row


def plain_penalties(
    logits: Sequence[float], sampling: Sampling, prompt: Sequence[int], answer: Sequence[int]
) -> list[float]:
    out = list(logits)
    for token in {*prompt, *answer}:
        factor = sampling.repetition_penalty
        out[token] = out[token] / factor if out[token] > 0 else out[token] * factor
    for token in answer:
        out[token] -= sampling.frequency_penalty
    for token in set(answer):
        out[token] -= sampling.presence_penalty
    return out


def plain_pipeline(
    logits: Sequence[float],
    sampling: Sampling,
    prompt: Sequence[int],
    answer: Sequence[int],
    allowed: set[int],
) -> list[float]:
    """The documented order of the steps, one token at a time."""
    out = [value if token in allowed else -math.inf for token, value in enumerate(logits)]
    out = plain_penalties(out, sampling, prompt, answer)
    if sampling.temperature == 0:
        return out
    best = max(out)
    out = [(value - best) / sampling.temperature for value in out]
    order = sorted(range(len(out)), key=lambda token: -out[token])
    for token in order[sampling.top_k or len(out) :]:
        out[token] = -math.inf
    total = sum(math.exp(value) for value in out)
    before = 0.0
    for token in order:
        probability = math.exp(out[token]) / total
        if sampling.top_p < 1 and before >= sampling.top_p:
            out[token] = -math.inf
        before += probability
    least = max(out) + (math.log(sampling.min_p) if sampling.min_p else -math.inf)
    return [value if value >= least else -math.inf for value in out]


def run_steps(logits: Tensor, batch: SamplingBatch) -> Tensor:
    for step in pipeline():
        logits = step(logits, batch)
    return logits


settings_of_a_row = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.5]),
        "top_k": st.sampled_from([0, 1, 3, 40, VOCAB, 1000]),
        "top_p": st.sampled_from([0.05, 0.5, 0.9, 1.0]),
        "min_p": st.sampled_from([0.0, 0.02, 0.3, 1.0]),
        "presence_penalty": st.sampled_from([0.0, 0.7, -0.4]),
        "frequency_penalty": st.sampled_from([0.0, 0.3]),
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.8]),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(settings_of_a_row, st.booleans(), st.lists(st.integers(0, VOCAB - 1))),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_batch_of_any_mix_equals_the_plain_pipeline(rows, seed) -> None:
    logits = torch.randn(len(rows), VOCAB, generator=torch.Generator().manual_seed(seed)) * 3
    allowed = {3, 4, 31, 32, 63, 64, 76}
    made = [
        make_row(Sampling(**changes), (5, 6), answer, AllowOnly(allowed) if masked else None)
        for changes, masked, answer in rows
    ]
    kept = logits.clone()
    ours = run_steps(logits, SamplingBatch(made, CPU))
    assert torch.equal(logits, kept), "the steps changed the model's logits"
    for index, (changes, masked, answer) in enumerate(rows):
        mask = allowed if masked else set(range(VOCAB))
        plain = plain_pipeline(kept[index].tolist(), Sampling(**changes), (5, 6), answer, mask)
        if changes["temperature"] == 0:  # only the best token matters, and nothing is cut
            assert ours[index].argmax().item() == plain.index(max(plain))
            continue
        mine = ours[index].tolist()
        assert [value == -math.inf for value in mine] == [value == -math.inf for value in plain]
        finite = [(a - max(mine), b) for a, b in zip(mine, plain, strict=True) if b != -math.inf]
        assert all(a == pytest.approx(b - max(plain), rel=1e-4, abs=1e-4) for a, b in finite)


def test_steps_without_takers_return_their_input_itself() -> None:
    logits = torch.randn(2, VOCAB)
    batch = SamplingBatch([make_row(Sampling()), make_row(Sampling(temperature=0.0))], CPU)
    for step in (grammar_mask, penalties, temperature, top_k, top_p, min_p):
        assert step(logits, batch) is logits


def test_top_k_keeps_exactly_k_of_equal_logits() -> None:
    out = top_k(torch.zeros(1, VOCAB), SamplingBatch([make_row(Sampling(top_k=5))], CPU))
    assert torch.isfinite(out).sum() == 5


@pytest.mark.parametrize("reach", [0.01, 0.3, 0.999])
def test_top_p_looks_further_where_a_guess_is_too_small(reach: float) -> None:
    """A flat distribution needs a known number of tokens, here within and past every guess."""
    size = 3 * NUCLEUS_GUESSES[-1]
    row = make_row(Sampling(top_p=reach), vocab_size=size)
    out = top_p(torch.zeros(1, size), SamplingBatch([row], CPU))
    assert torch.isfinite(out).sum().item() == pytest.approx(reach * size, abs=3)


def frequencies(logits: list[float], draws: int, **changes) -> list[float]:
    row = make_row(Sampling(seed=11, **changes), vocab_size=len(logits))
    batch, steps = SamplingBatch([row], CPU), pipeline()
    counts: Counter[int] = Counter()
    for _ in range(draws):
        ((token),) = choose(torch.tensor([logits]), batch, steps).tokens
        counts[token] += 1
        row.accept(token)
    return [counts[token] / draws for token in range(len(logits))]


@pytest.mark.parametrize("heat", [1.0, 0.5, 3.0])
def test_tokens_come_as_often_as_their_probability(heat: float) -> None:
    logits, draws = [2.0, 1.0, -math.inf, 0.0, -1.0, 0.5, -6.0], 4000
    wanted = torch.softmax(torch.tensor(logits) / heat, 0).tolist()
    for share, got in zip(wanted, frequencies(logits, draws, temperature=heat), strict=True):
        assert abs(got - share) <= 4.5 * math.sqrt(share * (1 - share) / draws) + 1e-9


def test_extreme_draws_and_flat_or_peaked_logits_stay_inside() -> None:
    """The first and the last draw of a full vocabulary, and weights that fill 54 bits."""
    size = 201_088
    row = make_row(Sampling(seed=1), vocab_size=size)
    batch = SamplingBatch([row], CPU)
    for name, expected in (("zeros", (0, size - 1)), ("peak", (7, 7))):
        logits = torch.zeros(1, size)
        if name == "peak":
            logits = torch.full((1, size), -math.inf)
            logits[0, 7] = 1e30
        for draw, token in zip((0, 2**DRAW_BITS - 1), expected, strict=True):
            row.draw = lambda draw=draw: draw  # type: ignore[method-assign]
            assert choose(logits, batch, pipeline()).tokens == [token]


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    logits = torch.randn(6, VOCAB)
    lone = [
        choose(logits[i : i + 1], SamplingBatch([make_row(Sampling(seed=i))], CPU), pipeline())
        for i in range(6)
    ]
    rows = [make_row(Sampling(seed=i)) for i in range(6)]
    together = choose(logits, SamplingBatch(rows, CPU), pipeline())
    assert together.tokens == [choice.tokens[0] for choice in lone]
    first, again = make_row(Sampling(seed=5)), make_row(Sampling(seed=5))
    assert first.draw() == again.draw()
    first.accept(0)
    assert first.draw() != again.draw()
    assert make_row(Sampling()).seed != make_row(Sampling()).seed


def test_greedy_and_random_rows_share_a_batch() -> None:
    logits = torch.randn(3, VOCAB)
    rows = [make_row(Sampling(temperature=heat, seed=3)) for heat in (0.0, 1.0, 1e-9)]
    tokens = choose(logits, SamplingBatch(rows, CPU), pipeline()).tokens
    assert tokens[0] == logits[0].argmax().item()
    assert tokens[2] == logits[2].argmax().item(), "a temperature near 0 overflowed"


class Broken(AllowOnly):
    def fill(self, row: NDArray[np.int32]) -> bool:
        raise ValueError("no such rule")


class Silent(AllowOnly):
    def fill(self, row: NDArray[np.int32]) -> bool:
        return False


@pytest.mark.parametrize("heat", [0.0, 1.0])
def test_a_row_that_allows_nothing_fails_alone(heat: float) -> None:
    logits = torch.randn(5, VOCAB)
    logits[4, 2] = math.nan
    sampling = Sampling(temperature=heat, seed=0)
    constraints = [None, AllowOnly(set()), AllowOnly({76}), Broken(set()), None]
    rows = [make_row(sampling, constraint=constraint) for constraint in constraints]
    batch = SamplingBatch(rows, CPU)
    choice = choose(logits, batch, pipeline())
    assert set(choice.failures) == {1, 3, 4}
    assert all(isinstance(failure, EngineError) for failure in choice.failures.values())
    assert "allows no token" in str(choice.failures[1])
    assert "no such rule" in str(choice.failures[3])
    assert "not finite" in str(choice.failures[4])
    assert choice.tokens[2] == 76
    assert set(choose(logits[:1], SamplingBatch(rows[:1], CPU), pipeline()).failures) == set()


def test_an_unconstrained_position_is_left_alone() -> None:
    logits = torch.randn(1, VOCAB)
    batch = SamplingBatch([make_row(Sampling(), constraint=Silent(set()))], CPU)
    assert grammar_mask(logits, batch) is logits


def test_research_fills_the_thermostat_slot_after_the_mask() -> None:
    seen = []

    def thermostat(logits: Tensor, batch: SamplingBatch) -> Tensor:
        seen.append(torch.isfinite(logits).sum().item())
        return torch.where(torch.arange(VOCAB) == 4, logits + 100, logits)

    row = make_row(Sampling(temperature=1.0, seed=0), constraint=AllowOnly({3, 4}))
    choice = choose(torch.zeros(1, VOCAB), SamplingBatch([row], CPU), pipeline([thermostat]))
    assert choice.tokens == [4]
    assert seen == [2]
