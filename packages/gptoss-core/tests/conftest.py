"""A tiny random model, made once: hidden != intermediate, 3 kv heads in groups of 2, 5 experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gptoss_core.model import Transformer
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    """Sizes of the tiny model; only its vocabulary is not the published one."""
    return tiny_config(vocab_size=512, num_hidden_layers=4)


@pytest.fixture(scope="session")
def tiny_folder(tiny: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as an `original/` folder."""
    return random_checkpoint(tmp_path_factory.mktemp("tiny") / "original", tiny, seed=1)


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> Transformer:
    """The tiny model in float32 with packed experts; tests must not change it."""
    return Transformer.from_checkpoint(tiny_folder, dtype=torch.float32)
