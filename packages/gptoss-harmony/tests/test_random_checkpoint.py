import numpy as np

from gptoss_harmony import bfloat16, mxfp4
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config

CONFIG = tiny_config(vocab_size=2000)


def test_the_seed_alone_decides_the_weights(tmp_path):
    one = random_checkpoint(tmp_path / "one", CONFIG, seed=7, threads=1)
    many = random_checkpoint(tmp_path / "many", CONFIG, seed=7, threads=4)
    other = random_checkpoint(tmp_path / "other", CONFIG, seed=8)
    contents = [(f / "model.safetensors").read_bytes() for f in (one, many, other)]
    assert contents[0] == contents[1] != contents[2]


def test_values_are_sane(tmp_path):
    done = []
    folder = random_checkpoint(tmp_path / "x", CONFIG, seed=1, progress=done.append)
    checkpoint = Checkpoint.open(folder)
    assert sum(done) == checkpoint.nbytes
    gain = bfloat16.to_float32(checkpoint.read("norm.scale"))
    assert 0.5 < gain.min() < gain.max() < 1.5
    embedding = bfloat16.to_float32(checkpoint.read("embedding.weight"))
    assert abs(embedding.std() - 1) < 0.02
    name = "block.0.mlp.mlp1_weight"
    blocks, scales = checkpoint.read(f"{name}.blocks"), checkpoint.read(f"{name}.scales")
    assert len(np.unique(scales)) == 3
    assert len(np.unique(blocks)) == 256
    assert 0.5 < mxfp4.unpack(blocks, scales).std() * 64**0.5 < 2
    assert len(np.unique(embedding, axis=0)) == 2000


def test_layers_and_projections_differ(tmp_path):
    checkpoint = Checkpoint.open(random_checkpoint(tmp_path / "x", CONFIG))
    first, second = (checkpoint.read(f"block.{n}.attn.out.weight") for n in (0, 1))
    assert np.mean(first == second) < 0.01
