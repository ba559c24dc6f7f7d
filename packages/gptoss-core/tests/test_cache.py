from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gptoss_core.cache import MOST_ROOM, DenseCache, KVCache, RingCache
from gptoss_core.errors import ShapeError
from gptoss_core.model import Transformer
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.random_checkpoint import tiny_config


def small_config() -> ModelConfig:
    return tiny_config(num_hidden_layers=3, sliding_window=8, num_key_value_heads=1)


def slots(start: int, stop: int, layer: int) -> Tensor:
    """Keys that say where they come from: position and layer; (T, 1, 2)."""
    positions = torch.arange(start, stop, dtype=torch.float32)
    return torch.stack([positions, torch.full_like(positions, layer)], dim=-1)[:, None]


def append(cache: KVCache, count: int, config: ModelConfig) -> None:
    """One pass; checks what every layer sees while it is under way."""
    start = cache.length
    for layer in range(config.num_hidden_layers):
        k = slots(start, start + count, layer)
        cache.append(layer, k, -k)
        check_view(cache, layer, start, start + count, config)


def check_view(cache: KVCache, layer: int, start: int, stop: int, config: ModelConfig) -> None:
    """All that queries start..stop-1 may see must be there, in order and unmixed."""
    keys, values, first = cache.view(layer)
    window = config.window(layer)
    assert first <= (0 if window is None else max(0, start - window + 1))
    torch.testing.assert_close(keys, slots(first, stop, layer), rtol=0, atol=0)
    torch.testing.assert_close(values, -keys, rtol=0, atol=0)


@pytest.mark.parametrize("make", [DenseCache, RingCache])
def test_every_query_finds_its_keys(make: type[DenseCache] | type[RingCache]) -> None:
    config = small_config()
    cache = make(config)
    for count in (3, 1, 1, 7, 30, 1, 2):
        append(cache, count, config)
    assert cache.length == 45


def test_long_buffers_grow_by_a_bounded_number_of_slots() -> None:
    cache = DenseCache(small_config())
    append(cache, 10_000, small_config())
    append(cache, 1, small_config())
    slot = cache.nbytes() / (10_000 + MOST_ROOM)
    assert slot == 3 * 2 * 2 * 4  # layers, keys and values, elements of a slot, bytes
    cache.trim()
    assert cache.nbytes() == slot * 10_001


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_random_walks_of_a_ring(seed: int) -> None:
    """Append, mark, go back and fork at random: views stay exact, positions are never overshot."""
    draw = random.Random(seed)
    config = small_config()
    cache: KVCache = RingCache(
        config, block=draw.choice([4, 16]), max_snapshots=draw.choice([2, 6])
    )
    for _ in range(25):
        length = cache.length
        target = draw.randint(0, length + 5)
        action = draw.choice(["append", "append", "mark", "truncate", "fork", "trim"])
        if action == "append":
            append(cache, draw.choice([1, 1, 2, 9, 25]), config)
        elif action == "mark":
            cache.mark(target)
        elif action == "truncate":
            reached = cache.truncate(target)
            assert reached == cache.length <= min(target, length)
        elif action == "trim":
            held = cache.nbytes()
            cache.trim()
            assert cache.length == length
            assert cache.nbytes() <= held
        else:
            cache, before = cache.fork(target), cache
            assert cache.length <= min(target, length)
            assert before.length == length
    append(cache, 1, config)


def test_a_ring_goes_back_to_marks_and_blocks_only() -> None:
    config = small_config()
    cache = RingCache(config, block=16)
    cache.mark(21)
    append(cache, 40, config)
    assert cache.fork(40).length == 40
    assert cache.fork(39).length == 39  # one slot more than the window needs is kept
    assert cache.fork(38).length == 32
    assert cache.fork(31).length == 31
    assert cache.fork(30).length == 21
    assert cache.fork(15).length == 15
    assert cache.fork(14).length == 0
    assert cache.truncate(25) == 21
    assert cache.truncate(40) == 21  # what is gone is gone


def test_a_ring_younger_than_its_window_goes_back_anywhere() -> None:
    config = small_config()
    cache = RingCache(config)
    append(cache, 8, config)
    assert [cache.fork(position).length for position in range(9)] == list(range(9))


def test_a_mark_at_the_present_length_is_kept() -> None:
    config = small_config()
    cache = RingCache(config, block=1000)
    append(cache, 30, config)
    cache.mark(30)
    append(cache, 30, config)
    assert cache.truncate(59) == 59
    assert cache.truncate(50) == 30


def test_snapshots_are_bounded_and_marked_ones_outlive_automatic_ones() -> None:
    config = small_config()
    cache = RingCache(config, block=4, max_snapshots=5)
    for position in (50, 90):
        cache.mark(position)
    for _ in range(100):
        append(cache, 2, config)
    assert cache.fork(50).length == 50
    assert cache.fork(90).length == 90
    window_slot = 2 * 2 * 2 * 4  # two layers with a window, keys and values, two float32 each
    full_layer = 2 * 2 * 4 * 256
    assert cache.nbytes() <= full_layer + window_slot * 8 * (1 + 5) * 2


def test_a_ring_holds_less_than_every_key() -> None:
    config = small_config()
    dense, ring = DenseCache(config), RingCache(config, block=10_000)
    for cache in (dense, ring):
        append(cache, 2000, config)
    assert ring.nbytes() < 0.4 * dense.nbytes()  # one of three layers sees all


@pytest.mark.parametrize("make", [DenseCache, RingCache])
def test_a_pass_that_fails_half_way_leaves_nothing(
    make: type[DenseCache] | type[RingCache],
) -> None:
    config = small_config()
    cache = make(config)
    append(cache, 20, config)
    k = torch.full((5, 1, 2), 99.0)
    cache.append(0, k, k)
    cache.append(1, k, k)  # and the last layer never comes
    assert cache.length == 20
    append(cache, 3, config)
    assert cache.length == 23


@pytest.mark.parametrize("make", [DenseCache, RingCache])
def test_forks_do_not_write_into_each_other(make: type[DenseCache] | type[RingCache]) -> None:
    config = small_config()
    cache = make(config)
    append(cache, 10, config)
    other = cache.fork(10)
    for layer in range(config.num_hidden_layers):
        k = torch.full((4, 1, 2), 99.0)
        other.append(layer, k, k)
    append(cache, 6, config)
    assert (cache.length, other.length) == (16, 14)


def test_an_empty_cache_says_so() -> None:
    for cache in (DenseCache(small_config()), RingCache(small_config())):
        with pytest.raises(ShapeError, match="layer 1 of the cache is empty"):
            cache.view(1)
    with pytest.raises(ShapeError, match="max_snapshots >= 2"):
        RingCache(small_config(), max_snapshots=1)


def random_tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 512, (count,), generator=torch.Generator().manual_seed(seed))


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the largest logit, which is what equal means on a CPU in float32."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("make", [DenseCache, RingCache])
def test_cached_logits_equal_uncached(
    make: type[DenseCache] | type[RingCache], tiny_model: Transformer
) -> None:
    tokens = random_tokens(300)
    expected = tiny_model(tokens)
    cache = make(tiny_model.config)
    pieces = torch.split(tokens, [1, 5, 121, 1, 1, 128, 1, 42])
    logits = torch.cat([tiny_model(piece, cache=cache) for piece in pieces])
    assert_equal(logits, expected)


@torch.no_grad()
def test_ring_equals_dense_after_going_back(tiny_model: Transformer) -> None:
    tokens, other = random_tokens(700), random_tokens(200, seed=1)
    dense, ring = DenseCache(tiny_model.config), RingCache(tiny_model.config)
    for cache in (dense, ring):
        tiny_model(tokens, cache=cache, last_only=True)
    assert dense.truncate(600) == 600
    reached = ring.truncate(600)
    assert reached == 512
    tiny_model(tokens[reached:600], cache=ring)
    assert_equal(tiny_model(other, cache=ring), tiny_model(other, cache=dense))


@torch.no_grad()
def test_three_chat_turns_that_drop_analysis_equal_uncached(tiny_model: Transformer) -> None:
    """Each turn's analysis disappears from the next prompt: back to the prompt's end, then on."""
    ring = RingCache(tiny_model.config, block=256)
    prompt: list[int] = random_tokens(290, seed=2).tolist()
    held: list[int] = []
    cached = []
    for turn in range(3):
        cached.append(ring.truncate(_common_prefix(held, prompt)))
        ring.mark(len(prompt))
        logits = tiny_model(torch.tensor(prompt[ring.length :]), cache=ring, last_only=True)
        assert_equal(logits, tiny_model(torch.tensor(prompt), last_only=True))
        analysis = random_tokens(60, seed=10 + turn).tolist()
        final = random_tokens(20, seed=20 + turn).tolist()
        for token in analysis + final:  # one at a time, as decoding does
            tiny_model(torch.tensor([token]), cache=ring, last_only=True)
        held = prompt + analysis + final
        prompt = prompt + final + random_tokens(80, seed=30 + turn).tolist()
    assert cached == [0, 290, 390]


def _common_prefix(old: list[int], new: list[int]) -> int:
    pairs = zip(old, new, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(old), len(new)))
