"""Which tensors a checkpoint has, and what the three layouts call them.

Canonical names are those of the `original/` folder. What differs (`n` is the layer, `E` experts,
`H` hidden, `I` intermediate, `G = in / 32` blocks):

```
canonical                         original      hf-mxfp4                 hf-bf16
attn.qkv.weight, .bias            one tensor    q, k, v: rows split      q, k, v: rows split
mlp.mlp1_weight.blocks, .scales   same bytes    gate_up_proj_blocks ...
mlp.mlp1_weight                                                          gate_up_proj [E, H, 2I]
```

Packed, mlp1 is blocks [E, 2I, H/32, 16] and scales [E, 2I, H/32]. Expanded, Hugging Face stores it
transposed against the canonical [E, 2I, H]. mlp2 (down_proj) likewise against [E, H, I].

Everything else is only renamed. In every layout even rows of mlp1 are gate, odd rows are up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gptoss_harmony.config import MXFP4_BLOCK, ModelConfig

Layout = Literal["original", "hf-mxfp4", "hf-bf16"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True, slots=True)
class Stored:
    """How (a part of) a canonical tensor stands in a file.

    Attributes:
        name: in the file.
        shape: in the file.
        dtype: "BF16" or "U8".
        transposed: the last two axes are swapped against the canonical shape.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One canonical tensor and the stored ones that make it, joined along axis 0."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: tuple[Stored, ...]


def tensor_specs(config: ModelConfig, layout: Layout) -> tuple[TensorSpec, ...]:
    """All tensors of a model, embedding first, then layer by layer, then the unembedding."""
    hidden, vocabulary = config.hidden_size, config.vocab_size
    specs = [
        _renamed("embedding.weight", (vocabulary, hidden), "model.embed_tokens.weight", layout)
    ]
    for layer in range(config.num_hidden_layers):
        specs += _attention(config, layer, layout)
        specs += _experts(config, layer, layout)
    specs.append(_renamed("norm.scale", (hidden,), "model.norm.weight", layout))
    specs.append(_renamed("unembedding.weight", (vocabulary, hidden), "lm_head.weight", layout))
    return tuple(specs)


def _renamed(name: str, shape: tuple[int, ...], hf_name: str, layout: Layout) -> TensorSpec:
    """A bf16 tensor that every layout stores whole."""
    stored = Stored(name if layout == "original" else hf_name, shape, "BF16")
    return TensorSpec(name, shape, "BF16", (stored,))


def _attention(config: ModelConfig, layer: int, layout: Layout) -> list[TensorSpec]:
    """Norm, fused qkv, sinks and output projection of one layer."""
    block, hf = f"block.{layer}.attn", f"model.layers.{layer}"
    hidden = config.hidden_size
    query_size = config.num_attention_heads * config.head_dim
    return [
        _renamed(f"{block}.norm.scale", (hidden,), f"{hf}.input_layernorm.weight", layout),
        _fused_qkv(config, f"{block}.qkv.weight", f"{hf}.self_attn", layout),
        _fused_qkv(config, f"{block}.qkv.bias", f"{hf}.self_attn", layout),
        _renamed(f"{block}.sinks", (config.num_attention_heads,), f"{hf}.self_attn.sinks", layout),
        _renamed(
            f"{block}.out.weight", (hidden, query_size), f"{hf}.self_attn.o_proj.weight", layout
        ),
        _renamed(f"{block}.out.bias", (hidden,), f"{hf}.self_attn.o_proj.bias", layout),
    ]


def _fused_qkv(config: ModelConfig, name: str, hf_prefix: str, layout: Layout) -> TensorSpec:
    """Query, key and value rows: one tensor in `original`, three in Hugging Face layouts."""
    kind = name.rpartition(".")[2]
    columns = (config.hidden_size,) if kind == "weight" else ()
    shape = (config.qkv_size, *columns)
    if layout == "original":
        return TensorSpec(name, shape, "BF16", (Stored(name, shape, "BF16"),))
    key_value_rows = config.num_key_value_heads * config.head_dim
    rows = {
        "q": config.num_attention_heads * config.head_dim,
        "k": key_value_rows,
        "v": key_value_rows,
    }
    stored = tuple(
        Stored(f"{hf_prefix}.{letter}_proj.{kind}", (count, *columns), "BF16")
        for letter, count in rows.items()
    )
    return TensorSpec(name, shape, "BF16", stored)


def _experts(config: ModelConfig, layer: int, layout: Layout) -> list[TensorSpec]:
    """Norm, router and the two expert projections of one layer."""
    block, hf = f"block.{layer}.mlp", f"model.layers.{layer}"
    experts, hidden, inner = config.num_experts, config.hidden_size, config.intermediate_size
    return [
        _renamed(f"{block}.norm.scale", (hidden,), f"{hf}.post_attention_layernorm.weight", layout),
        _renamed(f"{block}.gate.weight", (experts, hidden), f"{hf}.mlp.router.weight", layout),
        _renamed(f"{block}.gate.bias", (experts,), f"{hf}.mlp.router.bias", layout),
        *_expert_weight(
            f"{block}.mlp1_weight",
            (experts, 2 * inner, hidden),
            f"{hf}.mlp.experts.gate_up_proj",
            layout,
        ),
        _renamed(
            f"{block}.mlp1_bias",
            (experts, 2 * inner),
            f"{hf}.mlp.experts.gate_up_proj_bias",
            layout,
        ),
        *_expert_weight(
            f"{block}.mlp2_weight", (experts, hidden, inner), f"{hf}.mlp.experts.down_proj", layout
        ),
        _renamed(
            f"{block}.mlp2_bias", (experts, hidden), f"{hf}.mlp.experts.down_proj_bias", layout
        ),
    ]


def _expert_weight(
    name: str, shape: tuple[int, int, int], hf_name: str, layout: Layout
) -> list[TensorSpec]:
    """One expert matrix per expert: packed blocks and scales, or transposed bf16."""
    experts, rows, columns = shape
    if layout == "hf-bf16":
        stored = Stored(hf_name, (experts, columns, rows), "BF16", transposed=True)
        return [TensorSpec(name, shape, "BF16", (stored,))]
    groups = columns // MXFP4_BLOCK
    shapes = {
        "blocks": (experts, rows, groups, MXFP4_BLOCK // 2),
        "scales": (experts, rows, groups),
    }
    return [
        TensorSpec(
            f"{name}.{kind}",
            packed,
            "U8",
            (
                Stored(
                    f"{name}.{kind}" if layout == "original" else f"{hf_name}_{kind}", packed, "U8"
                ),
            ),
        )
        for kind, packed in shapes.items()
    ]
