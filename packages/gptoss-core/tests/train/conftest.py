from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gptoss_core.train.documents import Documents
from gptoss_harmony.config import ModelConfig


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    return ModelConfig(
        num_hidden_layers=2,
        num_experts=5,
        experts_per_token=2,
        vocab_size=300,
        hidden_size=96,
        intermediate_size=64,
        swiglu_limit=7.0,
        head_dim=16,
        num_attention_heads=6,
        num_key_value_heads=3,
        sliding_window=8,
        initial_context_length=64,
        rope_theta=150000.0,
        rope_scaling_factor=32.0,
        rope_ntk_alpha=1.0,
        rope_ntk_beta=32.0,
    )


@pytest.fixture
def config_file(config: ModelConfig, tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({name: getattr(config, name) for name in config.__slots__}))
    return path


@pytest.fixture(scope="session")
def documents() -> Documents:
    """Forty documents of 6 to 30 tokens: random ids, then the same ids as the answer."""
    rng = np.random.default_rng(0)
    tokens, labels, starts = [], [], [0]
    for _ in range(40):
        half = rng.integers(1, 60, rng.integers(3, 16))
        tokens += [*half, *half]
        labels += [2] * len(half) + [1 | 2 | 4 << 4] * len(half)
        starts.append(len(tokens))
    return Documents(
        tokens=np.array(tokens, dtype=np.uint32),
        labels=np.array(labels, dtype=np.uint8),
        starts=np.array(starts, dtype=np.int64),
        task=np.zeros(40, dtype=np.uint8),
        tasks=("copy",),
    )


@pytest.fixture
def shard(documents: Documents, tmp_path: Path) -> Path:
    path = tmp_path / "train.npz"
    np.savez(
        path,
        tokens=documents.tokens,
        labels=documents.labels,
        starts=documents.starts,
        task=documents.task,
        tasks=np.array(documents.tasks),
    )
    return path
