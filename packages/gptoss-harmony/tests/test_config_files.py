import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_harmony.config import gpt_oss_20b, gpt_oss_120b
from gptoss_harmony.config_files import (
    hugging_face_config_json,
    original_config_json,
    parse_config,
)
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.random_checkpoint import tiny_config

# As published for gpt-oss-20b: whole numbers where floats are meant.
ORIGINAL_20B = json.loads(
    """{"num_hidden_layers": 24, "num_experts": 32, "experts_per_token": 4, "vocab_size": 201088,
    "hidden_size": 2880, "intermediate_size": 2880, "swiglu_limit": 7.0, "head_dim": 64,
    "num_attention_heads": 64, "num_key_value_heads": 8, "sliding_window": 128,
    "initial_context_length": 4096, "rope_theta": 150000, "rope_scaling_factor": 32.0,
    "rope_ntk_alpha": 1, "rope_ntk_beta": 32}"""
)


def hugging_face(**changes):
    return hugging_face_config_json(gpt_oss_20b(), packed=True) | changes


@pytest.mark.parametrize("config", [gpt_oss_20b(), gpt_oss_120b(), tiny_config(vocab_size=300)])
def test_both_dialects_return_what_was_written(config):
    assert parse_config(original_config_json(config)) == config
    for packed in (True, False):
        written = json.loads(json.dumps(hugging_face_config_json(config, packed=packed)))
        assert parse_config(written) == config
        assert ("quantization_config" in written) is packed


def test_the_published_original_config_is_the_20b():
    config = parse_config(ORIGINAL_20B)
    assert config == gpt_oss_20b()
    assert type(config.rope_theta) is float


def test_transformers_5_rope_parameters_are_read():
    config = hugging_face()
    rope = config.pop("rope_scaling") | {"rope_theta": config.pop("rope_theta")}
    assert parse_config(config | {"rope_parameters": rope}) == gpt_oss_20b()


def test_unknown_and_missing_original_keys_come_in_one_message():
    config = ORIGINAL_20B | {"zeta": 1, "eta": 2}
    del config["num_experts"], config["head_dim"]
    with pytest.raises(CheckpointError) as error:
        parse_config(config, "x/config.json")
    for part in ("x/config.json", "'zeta'", "'eta'", "num_experts", "head_dim", "remove them"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "value", ["24", 24.0, True, None, [24], 1 << 40, -1, float("nan"), float("inf")]
)
def test_ill_typed_sizes_are_refused(value):
    with pytest.raises(CheckpointError, match="num_hidden_layers"):
        parse_config(ORIGINAL_20B | {"num_hidden_layers": value})


@pytest.mark.parametrize("value", ["7", True, None, float("nan"), float("inf"), 10**13])
def test_ill_typed_floats_are_refused(value):
    with pytest.raises(CheckpointError, match="swiglu_limit"):
        parse_config(ORIGINAL_20B | {"swiglu_limit": value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type must be 'gpt_oss'"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": False}, "attention_bias"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"rms_norm_eps": 1e-6}, "rms_norm_eps"),
        ({"swiglu_alpha": 1.0}, "swiglu_alpha"),
        ({"layer_types": ["full_attention"] * 24}, "alternate"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ({"experts_per_token": 2}, "disagree"),
        ({"initial_context_length": 8192}, "disagree"),
        ({"rope_scaling": None}, "missing key rope_scaling.factor"),
        ({"rope_scaling": [1]}, "rope_scaling must be an object"),
    ],
)
def test_hugging_face_switches_that_gpt_oss_lacks_are_refused(changes, message):
    with pytest.raises(CheckpointError, match=message):
        parse_config(hugging_face(**changes))


@pytest.mark.parametrize(
    ("key", "value"),
    [("truncate", True), ("rope_type", "linear"), ("attention_factor", 1.0), ("mscale", 2.0)],
)
def test_other_rotations_are_refused(key, value):
    rope = hugging_face()["rope_scaling"] | {key: value}
    with pytest.raises(CheckpointError, match=f"rope_scaling.{key}"):
        parse_config(hugging_face(rope_scaling=rope))


def test_several_problems_come_together():
    with pytest.raises(CheckpointError) as error:
        parse_config(hugging_face(hidden_act="relu", vocab_size="many", attention_bias=False))
    assert all(word in str(error.value) for word in ("hidden_act", "vocab_size", "attention_bias"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([ORIGINAL_20B, hugging_face()]))
def test_any_value_anywhere_is_read_or_refused(data, config):
    config = json.loads(json.dumps(config))
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), max_size=3)):
        config[key] = data.draw(json_values)
    if isinstance(rope := config.get("rope_scaling"), dict) and rope:
        rope[data.draw(st.sampled_from(sorted(rope)))] = data.draw(json_values)
    try:
        assert parse_config(config).max_context_length >= 0
    except CheckpointError as error:
        assert str(error).startswith("config.json: ")  # noqa: PT017 - both ways out are right
