import gc

import pytest
import torch

from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config
from gptoss_triton.build import build_machine, check_device
from gptoss_triton.errors import UnsupportedGpu
from gptoss_triton.options import TritonOptions
from gptoss_triton.weights import RandomSource, build_weights, load_weights


def test_other_devices_are_refused_with_the_way_out():
    with pytest.raises(UnsupportedGpu, match="--engine torch"):
        check_device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_reason_is_given():
    with pytest.raises(UnsupportedGpu, match="nvidia-smi"):
        check_device("cuda")


def test_expanded_experts_are_not_packed_silently(tmp_path):
    folder = random_checkpoint(tmp_path / "bf16", tiny_config(vocab_size=64), layout="hf-bf16")
    with pytest.raises(CheckpointError, match="expanded"):
        load_weights(Checkpoint.open(folder), torch.device("cpu"))


@pytest.mark.parametrize(("scale", "message"), [(255, "NaN"), (129, r"2\^2")])
def test_scales_that_cannot_be_decoded_are_named(scale, message):
    config = tiny_config(vocab_size=64)
    source = RandomSource(config, torch.device("cpu"))

    def read(names):
        tensors = source(names)
        for name, tensor in zip(names, tensors, strict=True):
            if name == "block.1.mlp.mlp2_weight.scales":
                tensor[0, 0, 0] = scale
        return tensors

    with pytest.raises(CheckpointError, match=rf"block\.1\.mlp\.mlp2_weight\.scales.*{message}"):
        build_weights(config, read, dtype=torch.float32, origin="here")


@pytest.mark.parametrize(
    "name", ["block.1.mlp.mlp2_bias", "block.0.attn.sinks", "unembedding.weight"]
)
def test_values_that_float16_cannot_hold_are_named(name):
    config = tiny_config(vocab_size=64)
    source = RandomSource(config, torch.device("cpu"))

    def read(names):
        tensors = source(names)
        for found, tensor in zip(names, tensors, strict=True):
            if found == name:
                tensor.view(-1)[3] = 70_000.0
        return tensors

    build_weights(config, read, dtype=torch.float32, origin="here")
    with pytest.raises(CheckpointError, match=rf"here: {name}.*torch\.float16"):
        build_weights(config, read, dtype=torch.float16, origin="here")


def test_both_mxfp4_layouts_give_the_same_bytes(tmp_path):
    config = tiny_config(vocab_size=64)
    loaded = [
        load_weights(
            Checkpoint.open(random_checkpoint(tmp_path / layout, config, layout=layout)),
            torch.device("cpu"),
        )
        for layout in ("original", "hf-mxfp4")
    ]
    for first, second in zip(loaded[0].layers, loaded[1].layers, strict=True):
        assert torch.equal(first.up.blocks, second.up.blocks)
        assert torch.equal(first.down.scales, second.down.scales)
        assert torch.equal(first.qkv_weight, second.qkv_weight)


def test_freeing_leaves_no_view_of_weights_or_pages(tmp_path):
    config = tiny_config(vocab_size=64)
    checkpoint = Checkpoint.open(random_checkpoint(tmp_path / "tiny", config))
    options = TritonOptions(max_batch=2, step_tokens=16, context=64)
    machine = build_machine(checkpoint, torch.device("cpu"), options)
    model = machine.runner.model
    held = {
        tensor.untyped_storage().data_ptr()
        for tensor in (model.cache.full, model.cache.windowed, model.weights.layers[0].up.blocks)
    }
    machine.free()
    tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
    assert held.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in tensors)
