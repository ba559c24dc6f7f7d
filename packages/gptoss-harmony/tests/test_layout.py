import math

from gptoss_harmony.config import gpt_oss_20b, gpt_oss_120b
from gptoss_harmony.layout import tensor_specs
from gptoss_harmony.random_checkpoint import tiny_config
from gptoss_harmony.safetensors_header import tensor_bytes


def stored(config, layout):
    return {s.name: s for spec in tensor_specs(config, layout) for s in spec.stored}


def test_counts_and_bytes_of_the_published_models():
    for config, original, hugging_face, nbytes in (
        (gpt_oss_20b(), 363, 459, 13_761_264_768),
        (gpt_oss_120b(), 543, 687, 65_248_815_744),
    ):
        for layout, count in (("original", original), ("hf-mxfp4", hugging_face)):
            tensors = stored(config, layout)
            assert len(tensors) == count
            assert sum(tensor_bytes(t.dtype, t.shape) for t in tensors.values()) == nbytes


def test_published_names_and_shapes():
    original = stored(gpt_oss_20b(), "original")
    assert original["block.23.attn.qkv.weight"].shape == (5120, 2880)
    assert original["block.0.mlp.mlp1_weight.blocks"].shape == (32, 5760, 90, 16)
    assert original["block.0.mlp.mlp2_weight.scales"].shape == (32, 2880, 90)
    packed = stored(gpt_oss_20b(), "hf-mxfp4")
    assert packed["model.layers.3.self_attn.k_proj.bias"].shape == (512,)
    assert packed["model.layers.3.mlp.experts.gate_up_proj_blocks"].dtype == "U8"
    assert packed["lm_head.weight"].shape == packed["model.embed_tokens.weight"].shape


def test_expanded_experts_are_transposed():
    config = tiny_config()
    expanded = stored(config, "hf-bf16")
    gate_up = expanded["model.layers.0.mlp.experts.gate_up_proj"]
    down = expanded["model.layers.0.mlp.experts.down_proj"]
    assert (gate_up.shape, gate_up.transposed) == ((5, 64, 192), True)
    assert (down.shape, down.transposed) == ((5, 96, 64), True)


def test_parts_add_up_to_their_canonical_tensor():
    for layout in ("original", "hf-mxfp4", "hf-bf16"):
        for spec in tensor_specs(tiny_config(), layout):
            assert sum(s.shape[0] for s in spec.stored) == spec.shape[0]
            assert sum(math.prod(s.shape) for s in spec.stored) == math.prod(spec.shape)
