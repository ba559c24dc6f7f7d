"""The recipe is no installed package: make it importable; a small packed model for the tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptoss_harmony import bfloat16, nano
from gptoss_harmony.checkpoint_writer import CheckpointWriter
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.layout import tensor_specs
from gptoss_harmony.nano_rows import expand_rows, quantise_rows, token_codes

sys.path.insert(0, str(Path(__file__).parents[1]))


def tiny_config() -> ModelConfig:
    """A model that packs in a second; the tables are as tall as always."""
    return ModelConfig(
        num_hidden_layers=2,
        num_experts=3,
        experts_per_token=2,
        vocab_size=201_088,
        hidden_size=64,
        intermediate_size=32,
        swiglu_limit=7.0,
        head_dim=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        initial_context_length=64,
        rope_theta=150_000.0,
        rope_scaling_factor=4.0,
        rope_ntk_alpha=1.0,
        rope_ntk_beta=32.0,
    )


CODE_SIZE = 32
EXPONENTS = (0, -3)


@pytest.fixture(scope="session")
def codes() -> dict[str, Any]:
    """How the tiny model's unlearned rows are made."""
    return {"code_size": CODE_SIZE, "exponents": EXPONENTS}


@pytest.fixture(scope="session")
def kept() -> np.ndarray:
    """Ids of the learned rows of the tiny model."""
    return np.array([0, 5, 17, 16_383, 16_384, 99_999, 200_002, 201_087])


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory, kept: np.ndarray) -> Path:
    """An `original/` folder such as the trainer leaves it."""
    config, rng = tiny_config(), np.random.default_rng(7)
    folder = tmp_path_factory.mktemp("trained") / "original"
    with CheckpointWriter(folder, config) as writer:
        for spec in tensor_specs(config, "original"):
            if spec.name.removesuffix(".weight") in nano.TABLES:
                place = nano.TABLES.index(spec.name.removesuffix(".weight"))
                table = np.zeros(spec.shape, np.float32)
                columns = slice(place * CODE_SIZE, (place + 1) * CODE_SIZE)
                table[:, columns] = token_codes(size=CODE_SIZE) * 2.0 ** EXPONENTS[place]
                rows = rng.normal(size=(len(kept), config.hidden_size)).astype(np.float32)
                table[kept] = expand_rows(*quantise_rows(rows))
                writer.append(spec.name, bfloat16.from_float32(table))
            elif spec.dtype == "U8":
                writer.append(spec.name, rng.integers(0, 200, spec.shape, dtype=np.uint8))
            else:
                writer.append(spec.name, rng.normal(size=spec.shape))
    return folder


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, original: Path, kept: np.ndarray) -> Path:
    """The tiny model, packed."""
    from recipe.pack import pack

    path = tmp_path_factory.mktemp("packed") / "nano.safetensors"
    pack(original, kept, path, code_size=CODE_SIZE, exponents=EXPONENTS)
    return path
