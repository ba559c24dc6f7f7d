import math

import pytest
import torch
import triton
import triton.language as tl

from gptoss_triton.launch import Launch
from gptoss_triton.sample import Draw, _noise, allow, draw, thresholds

LAUNCH = Launch()


def settle(place, logits, **changes):
    """Draw once for each row of logits."""
    rows, vocabulary = logits.shape
    settings = Draw.empty(rows=rows, vocabulary=vocabulary, device=place.device)
    for name, value in changes.items():
        getattr(settings, name).copy_(torch.as_tensor(value))
    identity = place.ints(range(rows))
    draw(logits, logits, identity, identity, identity, settings, launch=LAUNCH)
    return settings


def test_zero_temperature_takes_the_largest_and_reports_its_probability(place):
    logits = place.random(3, 9000, scale=3.0, dtype=torch.float32)
    settings = settle(place, logits)
    assert torch.equal(settings.token.long(), logits.argmax(-1))
    expected = logits.log_softmax(-1).gather(1, settings.token.long()[:, None])[:, 0]
    torch.testing.assert_close(settings.logprob, expected, rtol=1e-5, atol=1e-5)
    assert not settings.arrived.any()


def test_draws_follow_the_softmax_and_repeat_with_the_seed(place):
    rows = 60 if place.device.type == "cpu" else 20_000
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0] + [-30.0] * 4).repeat(rows, 1).to(place.device)
    seeds = torch.arange(rows) * 7919
    first = settle(place, logits, temperature=0.5, seed=seeds)
    again = settle(place, logits, temperature=0.5, seed=seeds)
    assert torch.equal(first.token, again.token)
    share = torch.bincount(first.token.cpu(), minlength=8).double() / rows
    expected = (logits[0].double().cpu() / 0.5).softmax(-1)
    deviation = (expected * (1 - expected) / rows).sqrt()
    assert ((share - expected).abs() <= 5 * deviation + 1e-9).all()


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"), [(3, 1.0, 0.0), (0, 0.6, 0.0), (0, 1.0, 0.2), (40, 0.5, 0.01)]
)
def test_thresholds_keep_what_sorting_keeps(place, top_k, top_p, min_p):
    logits = place.random(2, 300, scale=2.0, dtype=torch.float32)
    heat = 0.7
    settings = Draw.empty(rows=2, vocabulary=300, device=place.device)
    settings.temperature.fill_(heat)
    for name, value in (("top_k", top_k), ("top_p", top_p), ("min_p", min_p)):
        getattr(settings, name).fill_(value)
    thresholds(logits, place.ints([0, 1]), settings)
    for row in range(2):
        ordered = logits[row].double().cpu().sort(descending=True).values
        kept = ordered[:top_k] if top_k else ordered
        probability = (kept / heat).softmax(0)
        below = probability.cumsum(0) - probability < top_p
        kept = kept[below]
        kept = kept[kept >= ordered[0] + heat * torch.tensor(max(min_p, 1e-30)).log()]
        actual = (logits[row] >= settings.threshold[row]).sum()
        assert actual == len(kept)


def test_masks_forbid_clear_bits(place):
    adjusted = place.random(3, 70, dtype=torch.float32)
    before = adjusted.clone()
    words = place.ints([[0b101, 0, 1], [-1, -1, -1]])
    allow(adjusted, words, place.ints([2, 0]))
    assert torch.equal(adjusted[:2], before[:2])
    kept = torch.isfinite(adjusted[2]).nonzero()[:, 0]
    assert kept.tolist() == [0, 2, 64]


@triton.jit
def _write_noise(out, seed, position, SIZE: tl.constexpr, ASM: tl.constexpr):
    noise = _noise(seed, position, tl.program_id(0) * SIZE, SIZE, ASM)
    tl.store(out + tl.program_id(0) * SIZE + tl.arange(0, SIZE), noise)


def test_noise_is_gumbel_noise_and_its_numbers_do_not_depend_on_each_other(place):
    size, rows = 1024, 16
    out = place.poisoned(rows, size, dtype=torch.float32)
    seed = torch.seed() % 2**40 + 2**33
    _write_noise[(rows,)](out, seed, 5, SIZE=size, ASM=out.is_cuda)
    noise = (out * math.log(2)).double().cpu()
    shift = math.log(math.log(2))  # what the kernel leaves out
    uniform = (-(-(noise - shift)).exp()).exp().flatten()
    count = uniform.numel()
    ranks = uniform.sort().values
    distance = (ranks - (torch.arange(count) + 0.5) / count).abs().max()
    assert distance * count**0.5 < 2.3  # Kolmogorov-Smirnov: passed by all but 5 in 100,000
    centred = (uniform - 0.5) * 12**0.5
    for lag in (1, 2, 3, 4, size):
        mean = (centred[lag:] * centred[:-lag]).mean()
        assert abs(float(mean)) * count**0.5 < 5
