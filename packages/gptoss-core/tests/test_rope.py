from __future__ import annotations

import math

import pytest
import torch

from gptoss_core import rope
from gptoss_harmony.config import gpt_oss_20b


def test_concentration_and_bounds_of_the_published_models() -> None:
    config = gpt_oss_20b()
    assert rope.concentration(config) == pytest.approx(1.3465735902799727, rel=1e-15)
    low, high = rope.correction_bounds(config)
    assert low == pytest.approx(8.092779115512402, rel=1e-14)
    assert high == pytest.approx(17.39802450158856, rel=1e-14)


@pytest.mark.parametrize(
    ("pair", "frequency"),
    [(0, 1.0), (9, 0.0317056962), (12, 0.0067949595), (17, 1.29318701e-4), (31, 3.02351143e-7)],
)
def test_inverse_frequencies(pair: int, frequency: float) -> None:
    values = rope.inverse_frequencies(gpt_oss_20b())
    assert values.dtype == torch.float32
    assert float(values[pair]) == pytest.approx(frequency, rel=1e-7)


def test_fast_pairs_keep_and_slow_pairs_are_stretched() -> None:
    values = rope.inverse_frequencies(gpt_oss_20b()).double()
    plain = torch.tensor([150_000.0 ** (-i / 32) for i in range(32)], dtype=torch.float64)
    torch.testing.assert_close(values[:9], plain[:9], rtol=1e-7, atol=0)
    torch.testing.assert_close(values[18:], plain[18:] / 32, rtol=1e-7, atol=0)
    assert bool((values[9:18] < plain[9:18]).all())
    assert bool((values[9:18] > plain[9:18] / 32).all())


def test_tables_hold_the_concentration() -> None:
    cos, sin = rope.rope_tables(gpt_oss_20b(), torch.tensor([0, 5]))
    assert cos.shape == sin.shape == (2, 32)
    torch.testing.assert_close(cos[0], torch.full((32,), 1.3465735902799727))
    torch.testing.assert_close(sin[0], torch.zeros(32))
    assert float(cos[1, 0]) == pytest.approx(1.3465735902799727 * math.cos(5.0), rel=1e-6)


def test_pairs_are_half_a_head_apart() -> None:
    x = torch.zeros(1, 1, 64)
    x[0, 0, 3] = 2.0
    cos, sin = torch.full((1, 32), 0.6), torch.full((1, 32), 0.8)
    turned = rope.apply_rope(x, cos, sin)[0, 0]
    assert float(turned[3]) == pytest.approx(1.2)
    assert float(turned[35]) == pytest.approx(1.6)
    assert int((turned != 0).sum()) == 2


def test_scores_depend_on_distance_only() -> None:
    config = gpt_oss_20b()
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 1, 64, generator=generator).expand(3, 1, 64)
    k = torch.randn(1, 1, 64, generator=generator).expand(3, 1, 64)
    turned_q = rope.apply_rope(q, *rope.rope_tables(config, torch.tensor([10, 500, 4000])))
    turned_k = rope.apply_rope(k, *rope.rope_tables(config, torch.tensor([3, 493, 3993])))
    scores = (turned_q * turned_k).sum(-1)
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(scores[0], scores[2], rtol=1e-3, atol=1e-3)


def test_bf16_heads_are_turned_with_bf16_tables() -> None:
    config = gpt_oss_20b()
    x = torch.randn(4, 2, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    cos, sin = rope.rope_tables(config, torch.arange(4))
    turned = rope.apply_rope(x, cos, sin)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rope.apply_rope(x, cos.bfloat16(), sin.bfloat16()))
