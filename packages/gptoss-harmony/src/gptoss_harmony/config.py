"""The sizes of a gpt-oss model, under the names of the `original/` config.json."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gptoss_harmony.errors import CheckpointError

MXFP4_BLOCK = (
    32  # elements that share a scale; the input width of every expert matrix is a multiple
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes of one model; every field is required so that no size is ever assumed.

    Layers with an even index see only the last `sliding_window` keys, themselves included; layers
    with an odd index see all.
    """

    num_hidden_layers: int
    num_experts: int
    experts_per_token: int
    vocab_size: int
    hidden_size: int
    intermediate_size: int  # of one expert; the fused gate and up projection has twice as many rows
    swiglu_limit: float
    head_dim: int
    num_attention_heads: int
    num_key_value_heads: int
    sliding_window: int
    initial_context_length: int  # positions before YaRN stretches them
    rope_theta: float
    rope_scaling_factor: float
    rope_ntk_alpha: float  # beta_slow in Hugging Face's words
    rope_ntk_beta: float  # beta_fast in Hugging Face's words

    def __post_init__(self) -> None:
        """Refuse sizes that cannot make a model."""
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise CheckpointError(f"config: {name} must be positive, not {getattr(self, name)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise CheckpointError(
                f"config: num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.experts_per_token > self.num_experts:
            raise CheckpointError(
                f"config: experts_per_token ({self.experts_per_token}) exceeds "
                f"num_experts ({self.num_experts})"
            )
        for name in ("hidden_size", "intermediate_size"):
            if getattr(self, name) % MXFP4_BLOCK:
                raise CheckpointError(
                    f"config: {name} ({getattr(self, name)}) must be a multiple of {MXFP4_BLOCK}, "
                    "because MXFP4 blocks run along it"
                )
        if self.head_dim % 2:
            raise CheckpointError(f"config: head_dim ({self.head_dim}) must be even (rotary pairs)")

    @property
    def max_context_length(self) -> int:
        """Positions the rotary tables are made for: 131,072 in the published models."""
        return int(self.initial_context_length * self.rope_scaling_factor)

    @property
    def qkv_size(self) -> int:
        """Rows of the fused projection: query heads, then key heads, then value heads."""
        return self.head_dim * (self.num_attention_heads + 2 * self.num_key_value_heads)

    def window(self, layer: int) -> int | None:
        """Keys that a query of `layer` sees, itself included; None means all before it."""
        return self.sliding_window if layer % 2 == 0 else None


def gpt_oss_20b() -> ModelConfig:
    """The published sizes of gpt-oss-20b."""
    return ModelConfig(
        num_hidden_layers=24,
        num_experts=32,
        experts_per_token=4,
        vocab_size=201_088,
        hidden_size=2880,
        intermediate_size=2880,
        swiglu_limit=7.0,
        head_dim=64,
        num_attention_heads=64,
        num_key_value_heads=8,
        sliding_window=128,
        initial_context_length=4096,
        rope_theta=150_000.0,
        rope_scaling_factor=32.0,
        rope_ntk_alpha=1.0,
        rope_ntk_beta=32.0,
    )


def gpt_oss_120b() -> ModelConfig:
    """The published sizes of gpt-oss-120b: more layers and experts, all else as in the 20b."""
    return replace(gpt_oss_20b(), num_hidden_layers=36, num_experts=128)
