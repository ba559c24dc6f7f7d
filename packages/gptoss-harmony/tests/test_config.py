from dataclasses import replace

import pytest

from gptoss_harmony.config import gpt_oss_20b, gpt_oss_120b
from gptoss_harmony.errors import CheckpointError


def test_published_sizes():
    small, large = gpt_oss_20b(), gpt_oss_120b()
    assert small.max_context_length == large.max_context_length == 131_072
    assert small.qkv_size == 5120
    assert (large.num_hidden_layers, large.num_experts) == (36, 128)
    assert [small.window(layer) for layer in range(3)] == [128, None, 128]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts": 0}, "num_experts must be positive"),
        ({"num_key_value_heads": 7}, "multiple of num_key_value_heads"),
        ({"experts_per_token": 33}, "exceeds num_experts"),
        ({"hidden_size": 2881}, "hidden_size .* multiple of 32"),
        ({"intermediate_size": 40}, "intermediate_size .* multiple of 32"),
        ({"head_dim": 63}, "even"),
    ],
)
def test_sizes_that_make_no_model_are_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        replace(gpt_oss_20b(), **change)
