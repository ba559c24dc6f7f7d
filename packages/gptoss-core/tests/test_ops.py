from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gptoss_core import ops

HEADS, GROUPS, DIM = 6, 3, 8


def random_qkv(num_queries: int, num_keys: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(num_queries, HEADS, DIM, generator=generator)
    k = torch.randn(num_keys, GROUPS, DIM, generator=generator)
    v = torch.randn(num_keys, GROUPS, DIM, generator=generator)
    return q, k, v


def attention_with_sink_column(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, *, window: int | None, offset: int
) -> Tensor:
    """The published formula, in float64: one more column in the softmax, dropped afterwards."""
    k = k.repeat_interleave(HEADS // GROUPS, dim=1).double()
    v = v.repeat_interleave(HEADS // GROUPS, dim=1).double()
    scores = torch.einsum("thd,shd->hts", q.double(), k) / math.sqrt(DIM)
    distance = torch.arange(len(q))[:, None] + offset - torch.arange(len(k))
    hidden = (distance < 0) | (distance >= (window or len(k) + len(q) + offset + 1))
    scores = scores.masked_fill(hidden, -math.inf)
    column = sinks.double()[:, None, None].expand(HEADS, len(q), 1)
    weights = torch.softmax(torch.cat([scores, column], dim=-1), dim=-1)[..., :-1]
    return torch.einsum("hts,shd->thd", weights, v)


@pytest.mark.parametrize("window", [None, 1, 4, 128])
@pytest.mark.parametrize("offset", [0, 1, 7, 200])
def test_attention_is_the_published_formula(window: int | None, offset: int) -> None:
    q, k, v = random_qkv(13, 13 + offset)
    sinks = torch.linspace(-2, 3, HEADS)
    out = ops.apply_sink(*ops.attention(q, k, v, window=window, offset=offset), sinks)
    expected = attention_with_sink_column(q, k, v, sinks, window=window, offset=offset)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("position", "seen"), [(126, 127), (127, 128), (128, 128), (129, 128)])
def test_a_window_of_128_holds_128_keys_the_own_one_included(position: int, seen: int) -> None:
    k = torch.zeros(position + 1, GROUPS, DIM)
    v = torch.zeros(position + 1, GROUPS, DIM)
    v[position + 1 - seen :] = 1.0  # the keys that may be seen, and no others
    q = torch.zeros(1, HEADS, DIM)
    out, lse = ops.attention(q, k, v, window=128, offset=position)
    torch.testing.assert_close(out, torch.ones_like(out))
    torch.testing.assert_close(lse, torch.full_like(lse, math.log(seen)))


def test_attention_in_chunks_equals_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = random_qkv(300, 340)
    for window in (None, 16):
        whole = ops.attention(q, k, v, window=window, offset=40)
        with monkeypatch.context() as patch:
            patch.setattr(ops, "SCORE_ELEMENTS", 5 * HEADS * 340)
            chunked = ops.attention(q, k, v, window=window, offset=40)
        torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)


def test_attention_takes_a_batch() -> None:
    several = [random_qkv(9, 9, seed=seed) for seed in range(3)]
    q, k, v = (torch.stack(tensors) for tensors in zip(*several, strict=True))
    out, lse = ops.attention(q, k, v, window=4, offset=0)
    for row, (one_q, one_k, one_v) in enumerate(several):
        one = ops.attention(one_q, one_k, one_v, window=4, offset=0)
        torch.testing.assert_close((out[row], lse[row]), one, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 30), max_size=4),
    window=st.sampled_from([None, 1, 5, 20]),
    seed=st.integers(0, 100),
)
def test_merged_parts_equal_the_whole(cuts: list[int], window: int | None, seed: int) -> None:
    q, k, v = random_qkv(10, 30, seed=seed)
    whole = ops.attention(q, k, v, window=window, offset=20)
    edges = [0, *sorted(cuts), 30]
    parts = [
        ops.attention(q, k[start:stop], v[start:stop], window=window, offset=20 - start)
        for start, stop in pairwise(edges)
    ]
    torch.testing.assert_close(ops.merge(parts), whole, rtol=1e-5, atol=1e-6)


def test_a_query_without_keys_gets_zeros_and_minus_infinity() -> None:
    q, k, v = random_qkv(4, 4)
    out, lse = ops.attention(q, k, v, window=None, offset=-2)  # the keys start two positions later
    assert bool((out[:2] == 0).all())
    assert bool((lse[:2] == -math.inf).all())
    assert bool((ops.apply_sink(out, lse, torch.zeros(HEADS))[:2] == 0).all())
    assert bool(torch.isfinite(lse[2:]).all())


def test_gradients_flow_through_attention() -> None:
    q, k, v = (tensor.requires_grad_() for tensor in random_qkv(6, 6))
    sinks = torch.zeros(HEADS, requires_grad=True)
    ops.apply_sink(*ops.attention(q, k, v, window=3, offset=0), sinks).square().sum().backward()
    for tensor in (q, k, v, sinks):
        assert tensor.grad is not None
        assert bool(torch.isfinite(tensor.grad).all())
        assert bool((tensor.grad != 0).any())


def test_rms_norm_applies_the_gain_before_rounding() -> None:
    x = torch.tensor([[1.0, -2.0, 3.0, 0.5]], dtype=torch.bfloat16)
    scale = torch.tensor([1.01, 0.99, 1.003, 3.0])
    expected = x.double() / (x.double().square().mean() + 1e-5).sqrt() * scale.double()
    result = ops.rms_norm(x, scale, 1e-5)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, expected.to(torch.bfloat16))


def test_router_softmaxes_over_the_chosen_only() -> None:
    weights, indices = ops.route(torch.tensor([[0.0, 3.0, -1.0, 2.0, 9.0]]), 3)
    assert indices.tolist() == [[4, 1, 3]]
    torch.testing.assert_close(weights, torch.softmax(torch.tensor([[9.0, 3.0, 2.0]]), -1))


@pytest.mark.parametrize(
    ("gate", "up", "expected"),
    [
        (1.0, 0.5, 1.0 / (1 + math.exp(-1.702)) * 1.5),
        (9.0, 9.0, 7.0 / (1 + math.exp(-1.702 * 7)) * 8.0),  # both clamped
        (-9.0, -9.0, -9.0 / (1 + math.exp(1.702 * 9)) * -6.0),  # the gate only from above
    ],
)
def test_swiglu_values(gate: float, up: float, expected: float) -> None:
    out = ops.swiglu(torch.tensor([gate, up, 0.0, 3.0]), 7.0)
    torch.testing.assert_close(out, torch.tensor([expected, 0.0]))


def test_unembed_widens_bf16_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 64, generator=generator).bfloat16()
    weight = torch.randn(100, 64, generator=generator).bfloat16()
    monkeypatch.setattr(ops, "UNEMBED_ELEMENTS", 64 * 7)
    logits = ops.unembed(x, weight)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, x.float() @ weight.float().T)
