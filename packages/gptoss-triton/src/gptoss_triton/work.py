"""What one forward pass decides and allocates once, for all its layers.

Every layer writes the same tensors anew: kernels run in order, so the layer before is done with
them. Looking these things up layer by layer took a third of the host's time for a step that runs
without a graph.

Dimensions: T tokens, B of them decode rows, Q = T K pairs, N model width, I inner width, H query
heads, D head dim, K experts per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_harmony.config import ModelConfig
from gptoss_triton.launch import Launch
from gptoss_triton.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Tile sizes and intermediate results of a pass.

    Attributes:
        launch: tile sizes by operation, for T tokens.
        decode: the same for B decode rows.
        few_experts: the experts run pair by pair, see `experts_few`.
        few_router: the router runs in its form for a few tokens.
        x: (T, N) float32, the residual stream.
        spare: another, if the router needs one; it and `x` swap places in every layer.
        normed: (T, N), what attention reads.
        qkv: (T, (H + 2 G) D).
        heads: (T, H D), attention's output.
        y: (T, N) float32, the same after its projection, without the bias.
        states: (T, N), what the experts read.
        chosen: ((T + 1) K,) int32, experts of the pairs; the last K are scratch.
        gates: ((T + 1) K,) float32, their weights, likewise.
        hidden: (Q, I), between the experts' products.
        parts: (Q, N) float32, the experts' output.
    """

    launch: Mapping[str, Launch]
    decode: Mapping[str, Launch]
    few_experts: bool
    few_router: bool
    x: Tensor
    spare: Tensor
    normed: Tensor
    qkv: Tensor
    heads: Tensor
    y: Tensor
    states: Tensor
    chosen: Tensor
    gates: Tensor
    hidden: Tensor
    parts: Tensor

    @classmethod
    def begin(
        cls,
        config: ModelConfig,
        tuning: Tuning,
        *,
        tokens: int,
        decode: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Work:
        """Decide and allocate.

        Args:
            config: sizes.
            tuning: tile sizes.
            tokens: T.
            decode: B.
            device: where.
            dtype: of the weights that are not packed.
        """
        width, pairs = config.hidden_size, tokens * config.experts_per_token
        few_experts = tokens <= tuning.limit("experts_up_few")
        few_router = tokens <= tuning.limit("router_few")
        launch = tuning.at(tokens)

        def room(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        x = room(tokens, width, dtype=torch.float32)
        return cls(
            launch=launch,
            decode=tuning.at(decode),
            few_experts=few_experts,
            few_router=few_router,
            x=x,
            spare=torch.empty_like(x) if few_router else x,
            normed=room(tokens, width),
            qkv=room(tokens, config.qkv_size),
            heads=room(tokens, config.num_attention_heads * config.head_dim),
            y=room(tokens, width, dtype=torch.float32),
            states=room(tokens, width),
            chosen=room(pairs + config.experts_per_token, dtype=torch.int32),
            gates=room(pairs + config.experts_per_token, dtype=torch.float32),
            hidden=room(pairs, config.intermediate_size),
            parts=room(pairs, width, dtype=torch.float32),
        )
