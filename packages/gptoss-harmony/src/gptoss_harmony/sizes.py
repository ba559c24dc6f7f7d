"""How many parameters a model has and how many bytes it needs, from its sizes alone.

```
sizes.parameters(gpt_oss_20b())            # 20_914_757_184
sizes.cache_bytes(gpt_oss_20b(), 131_072)  # 3.2 GB; with full_windows=True 6.4 GB
```
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from gptoss_harmony.config import MXFP4_BLOCK, ModelConfig
from gptoss_harmony.layout import Layout, tensor_specs
from gptoss_harmony.safetensors_header import tensor_bytes

KINDS = ("embedding", "attention", "router", "experts", "norms", "unembedding")
_BF16_BYTES = 2


def parameters(config: ModelConfig) -> int:
    """All parameters; an MXFP4 element counts as one, its scale as none."""
    return sum(parameters_by_kind(config).values())


def active_parameters(config: ModelConfig) -> int:
    """Parameters that one token meets: everything but the embedding table and unchosen experts."""
    kinds = parameters_by_kind(config)
    chosen = kinds["experts"] * config.experts_per_token // config.num_experts
    return sum(kinds.values()) - kinds["embedding"] - kinds["experts"] + chosen


def parameters_by_kind(config: ModelConfig) -> Mapping[str, int]:
    """Parameters of each of `KINDS`."""
    result = dict.fromkeys(KINDS, 0)
    for spec in tensor_specs(config, "hf-bf16"):
        result[kind_of(spec.name)] += math.prod(spec.shape)
    return result


def bytes_by_kind(config: ModelConfig, layout: Layout) -> Mapping[str, int]:
    """Bytes on disk (and in memory, if kept as they are) of each of `KINDS`."""
    result = dict.fromkeys(KINDS, 0)
    for spec in tensor_specs(config, layout):
        result[kind_of(spec.name)] += tensor_bytes(spec.dtype, spec.shape)
    return result


def weight_bytes(config: ModelConfig, *, packed: bool) -> int:
    """Bytes of all weights with experts in MXFP4 (`packed`) or in bf16."""
    return sum(bytes_by_kind(config, "original" if packed else "hf-bf16").values())


def cache_bytes(config: ModelConfig, context: int, *, full_windows: bool = False) -> int:
    """Bytes of the keys and values of one sequence in bf16.

    Args:
        config: the sizes.
        context: tokens.
        full_windows: keep all positions of the windowed layers too, instead of a ring of the last
            `sliding_window`.
    """
    slots = sum(
        context
        if full_windows or (window := config.window(layer)) is None
        else min(context, window)
        for layer in range(config.num_hidden_layers)
    )
    return slots * 2 * config.num_key_value_heads * config.head_dim * _BF16_BYTES


def expert_bytes(config: ModelConfig, *, packed: bool) -> int:
    """Bytes of one expert of one layer, biases left out."""
    elements = 3 * config.intermediate_size * config.hidden_size
    if packed:
        return elements // 2 + elements // MXFP4_BLOCK
    return elements * _BF16_BYTES


def kind_of(name: str) -> str:
    """Which of `KINDS` a canonical tensor belongs to."""
    if name in ("embedding.weight", "unembedding.weight"):
        return name.partition(".")[0]
    if name.endswith("norm.scale"):
        return "norms"
    if ".attn." in name:
        return "attention"
    return "router" if ".gate." in name else "experts"
