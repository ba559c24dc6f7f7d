"""Kept caches: which one serves a prompt, and which ones go."""

from __future__ import annotations

import pytest
import torch

from gptoss_core import prefix as prefix_module
from gptoss_core.cache import DenseCache
from gptoss_core.prefix import Prefix, PrefixStore
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.random_checkpoint import tiny_config

CONFIG: ModelConfig = tiny_config(head_dim=2)


def kept(tokens: list[int], *, prompt_length: int = 0, salt: str = "") -> Prefix:
    """A cache whose keys are the tokens themselves."""
    cache = DenseCache(CONFIG)
    values = torch.tensor(tokens, dtype=torch.float32)[:, None, None].expand(-1, 3, 2)
    for layer in range(CONFIG.num_hidden_layers):
        cache.append(layer, values, values)
    return Prefix.of([*tokens, 999], cache, salt=salt, prompt_length=prompt_length)


def held(cache) -> list[int]:
    return [] if cache is None else cache.view(0)[0][:, 0, 0].int().tolist()


def test_the_longest_shared_part_is_forked_and_stays() -> None:
    store = PrefixStore()
    for tokens in ([1, 2, 3, 4], [1, 2, 9], [7]):
        store.keep(kept(tokens, prompt_length=4))
    cache = store.reuse([1, 2, 3, 8, 8], salt="")
    assert held(cache) == [1, 2, 3]
    assert len(store) == 3
    assert held(store.reuse([1, 2, 3, 4, 5], salt="")) == [1, 2, 3, 4]


def test_a_continued_prompt_takes_the_cache_and_winds_it_back() -> None:
    store = PrefixStore()
    entry = kept([1, 2, 3, 4, 5], prompt_length=3)
    store.keep(entry)
    assert store.reuse([1, 2, 3, 8], salt="") is entry.cache
    assert held(entry.cache) == [1, 2, 3]
    assert len(store) == store.nbytes == 0


def test_the_last_prompt_token_is_always_computed() -> None:
    store = PrefixStore()
    store.keep(kept([1, 2, 3], prompt_length=3))
    assert held(store.reuse([1, 2, 3], salt="")) == [1, 2]
    assert store.reuse([1], salt="") is None


def test_other_salts_and_other_beginnings_share_nothing() -> None:
    store = PrefixStore()
    store.keep(kept([1, 2, 3], salt="a"))
    assert store.reuse([1, 2, 3, 4], salt="b") is None
    assert store.reuse([5, 2, 3, 4], salt="a") is None
    running = [kept([5, 2, 3], salt="a", prompt_length=1)]
    fork = store.reuse([5, 2, 3, 4], salt="a", running=running)
    assert held(fork) == [5, 2, 3]
    assert fork is not running[0].cache, "a running cache was taken away"


def test_a_longer_cache_replaces_those_it_contains() -> None:
    store = PrefixStore()
    store.keep(kept([1, 2], prompt_length=9))
    store.keep(kept([1, 2], prompt_length=9, salt="a"))
    store.keep(kept([1, 2, 3], prompt_length=9))
    assert len(store) == 2
    assert store.nbytes == sum(entry.cache.nbytes() for entry in store._entries)


def test_the_longest_unused_goes_first() -> None:
    store = PrefixStore()
    entries = [kept([token, 2, 3], prompt_length=9) for token in range(3)]
    for entry in entries:
        store.keep(entry)
    store.reuse([0, 2, 5], salt="")  # the first is now the last used
    size = entries[0].cache.nbytes()
    assert store.evict(size + 1) == 2 * size
    assert held(store.reuse([0, 2, 5], salt="")) == [0, 2]
    assert store.reuse([1, 2, 5], salt="") is None
    assert store.evict(10**9) == size
    assert store.nbytes == 0


def test_the_number_of_caches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_module, "MAX_ENTRIES", 3)
    store = PrefixStore()
    for token in range(5):
        store.keep(kept([token]))
    assert len(store) == 3
    assert store.reuse([0, 1], salt="") is None
    assert held(store.reuse([4, 1], salt="")) == [4]


def test_an_empty_cache_is_not_kept() -> None:
    store = PrefixStore()
    store.keep(Prefix.of([1, 2], DenseCache(CONFIG), salt="", prompt_length=2))
    assert len(store) == 0
