"""Transformers reads what gptoss-harmony writes, and the other way round.

The code is gptoss-harmony's; the tests are here because they need torch.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from gptoss_harmony import bfloat16
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config import gpt_oss_20b
from gptoss_harmony.config_files import hugging_face_config_json, parse_config
from gptoss_harmony.convert import convert_checkpoint
from gptoss_harmony.layout import Layout
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config
from gptoss_harmony.testing import require

CONFIG = tiny_config(vocab_size=320)


def require_transformers() -> ModuleType:
    require(find_spec("transformers") is not None, "transformers is not installed")
    import transformers

    return transformers


def convert(source: Checkpoint, folder: Path, layout: Layout, **options: Any) -> Checkpoint:
    return Checkpoint.open(convert_checkpoint(source, folder, layout=layout, **options).folder)


@pytest.mark.transformers
def test_transformers_reads_our_config_as_we_do(tmp_path: Path) -> None:
    transformers = require_transformers()

    ours = hugging_face_config_json(gpt_oss_20b(), packed=False)
    (tmp_path / "config.json").write_text(json.dumps(ours))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "GptOssConfig"
    theirs.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert parse_config(written) == gpt_oss_20b()


@pytest.mark.transformers
def test_transformers_loads_the_converted_folder(tmp_path: Path) -> None:
    transformers = require_transformers()

    original = Checkpoint.open(random_checkpoint(tmp_path / "original", CONFIG, seed=3))
    packed = convert(original, tmp_path / "hf", "hf-mxfp4", max_shard_bytes=200_000)
    dense = convert(original, tmp_path / "dense", "hf-bf16")
    models = [
        transformers.AutoModelForCausalLM.from_pretrained(
            packed.path,
            dtype=torch.bfloat16,
            quantization_config=transformers.Mxfp4Config(dequantize=True),
        ),
        transformers.AutoModelForCausalLM.from_pretrained(dense.path, dtype=torch.bfloat16),
    ]
    for model, name in zip(models, ("saved-packed", "saved-dense"), strict=True):
        model.save_pretrained(tmp_path / name)
        saved = Checkpoint.open(tmp_path / name)
        assert saved.layout == "hf-bf16"
        for tensor in dense.tensors:
            assert np.array_equal(saved.read(tensor), dense.read(tensor)), tensor
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), name
    experts = states[0]["model.layers.1.mlp.experts.gate_up_proj"]  # (E, in, out)
    values = bfloat16.to_float32(dense.read("block.1.mlp.mlp1_weight"))  # (E, out, in)
    assert np.array_equal(experts.float().numpy().swapaxes(1, 2), values)
    with torch.no_grad():
        logits = models[0](torch.arange(140)[None] % 320).logits
    assert torch.isfinite(logits).all()
    assert logits.std() > 0.1
