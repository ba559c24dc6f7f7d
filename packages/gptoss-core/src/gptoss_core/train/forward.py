"""The training forward pass: the model as a function of its weights, over packed rows.

    x = embedding[token];  per layer:  x += attention(norm(x));  x += experts(norm(x))

It computes what `gptoss_core.model.Transformer` computes (a test holds the two together), with
three differences that training needs: weights are arguments, so that fake quantisation and LoRA are
plain expressions of them; documents packed in one row do not see each other; and the router's
load-balance term comes out beside the states.

Dimensions: B rows, T positions, N model width, H query heads, G kv heads, D head dim, E experts,
K chosen, I expert width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gptoss_core import ops
from gptoss_core.experts import apply_experts
from gptoss_core.model import NORM_EPSILON
from gptoss_core.rope import apply_rope, rope_tables
from gptoss_core.train.attention import Attend, Mask, document_masks, flex_attend, plain_attend
from gptoss_harmony.config import ModelConfig

Weights = dict[str, Tensor]
ALL_EXPERTS_LIMIT = 16  # with at most so many experts, running all of them is the faster choice


class Forward:
    """The model's forward pass, its implementation chosen once.

    Args:
        config: sizes; `vocab_size` is not used, the weights decide.
        experts: "all" multiplies every token with every expert, "routed" groups tokens by expert,
            "auto" takes "all" for small models.
        flex: use flex_attention (needs `compile`).
        compile: compile one layer and use it for all.
        checkpointing: recompute each layer in the backward pass.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        experts: str = "auto",
        flex: bool = False,
        compile: bool = False,
        checkpointing: bool = False,
    ) -> None:
        self.config = config
        self.flex = flex
        self.checkpointing = checkpointing
        few = config.num_experts <= ALL_EXPERTS_LIMIT
        every = experts == "all" or (experts == "auto" and few)
        attend: Attend = flex_attend if flex else plain_attend

        def layer(
            x: Tensor, w: Weights, cos: Tensor, sin: Tensor, mask: Mask
        ) -> tuple[Tensor, Tensor]:
            x = attention_block(x, w, cos, sin, mask, config=config, attend=attend)
            return experts_block(x, w, config=config, every=every)

        self._layer: Callable[..., Any] = torch.compile(layer, dynamic=False) if compile else layer

    def hidden(self, weights: Weights, tokens: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
        """States before the unembedding.

        Args:
            weights: under their `original/` names; the embedding may hold any number of rows.
            tokens: (B, T) rows of the embedding.
            documents: (B, T), number of each position's document.

        Returns:
            (B, T, N) normed states, and the load-balance term: 1 when all experts are used alike.
        """
        window = self.config.sliding_window
        masks = document_masks(documents, window=window, flex=self.flex)
        cos, sin = rope_tables(self.config, torch.arange(tokens.shape[1], device=tokens.device))
        x = functional.embedding(tokens, weights["embedding.weight"])  # (B, T, N)
        balance = x.new_zeros((), dtype=torch.float32)
        for number in range(self.config.num_hidden_layers):
            prefix = f"block.{number}."
            w = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            mask = masks.full if self.config.window(number) is None else masks.windowed
            if self.checkpointing:
                x, term = checkpoint(self._layer, x, w, cos, sin, mask, use_reentrant=False)
            else:
                x, term = self._layer(x, w, cos, sin, mask)
            balance = balance + term / self.config.num_hidden_layers
        return ops.rms_norm(x, weights["norm.scale"], NORM_EPSILON), balance


def attention_block(
    x: Tensor,
    w: Weights,
    cos: Tensor,
    sin: Tensor,
    mask: Mask,
    *,
    config: ModelConfig,
    attend: Attend,
) -> Tensor:
    """(B, T, N) -> (B, T, N), the residual included."""
    groups = config.num_key_value_heads
    normed = ops.rms_norm(x, w["attn.norm.scale"], NORM_EPSILON)
    qkv = functional.linear(normed, w["attn.qkv.weight"], w["attn.qkv.bias"])
    qkv = qkv.view(*x.shape[:-1], -1, config.head_dim)  # (B, T, H + 2 G, D)
    q, k, v = torch.split(qkv, [config.num_attention_heads, groups, groups], dim=-2)
    out, lse = attend(apply_rope(q, cos, sin), apply_rope(k, cos, sin), v, mask)
    out = ops.apply_sink(out, lse, w["attn.sinks"]).flatten(-2)  # (B, T, H D)
    return x + functional.linear(out.to(x.dtype), w["attn.out.weight"], w["attn.out.bias"])


def experts_block(
    x: Tensor, w: Weights, *, config: ModelConfig, every: bool
) -> tuple[Tensor, Tensor]:
    """(B, T, N) -> (B, T, N), the residual included, and the load-balance term."""
    normed = ops.rms_norm(x, w["mlp.norm.scale"], NORM_EPSILON).flatten(0, -2)  # (B T, N)
    logits = functional.linear(
        normed.float(), w["mlp.gate.weight"].float(), w["mlp.gate.bias"].float()
    )  # (B T, E)
    weights, indices = ops.route(logits, config.experts_per_token)
    dense = torch.zeros_like(logits).scatter(-1, indices, weights)  # (B T, E), 0 if not chosen
    if every:
        out = apply_all_experts(normed, dense, w, limit=config.swiglu_limit)
    else:
        mlp1, mlp2 = ((w[f"mlp.mlp{i}_weight"], w[f"mlp.mlp{i}_bias"]) for i in (1, 2))
        out = apply_experts(
            normed,
            weights,
            indices,
            mlp1=mlp1,  # type: ignore[arg-type]  # weights of a step are tensors, not parameters
            mlp2=mlp2,  # type: ignore[arg-type]
            limit=config.swiglu_limit,
        )
    return x + out.to(x.dtype).view_as(x), balance_term(logits, dense, config.experts_per_token)


def apply_all_experts(x: Tensor, dense: Tensor, w: Weights, *, limit: float) -> Tensor:
    """Every expert for every token as two matrix products, the unchosen weighted by zero.

    Args:
        x: (T, N).
        dense: (T, E) router weights.
        w: the layer's weights.
        limit: of `ops.swiglu`.

    Returns:
        (T, N), what `apply_experts` gives up to rounding: sum over e of
        `w_e (W2_e h_e + b2_e) = [w_1 h_1, ..., w_E h_E] [W2_1, ..., W2_E]^T + w b2`.
    """
    count, width, inner = w["mlp.mlp2_weight"].shape
    up = functional.linear(
        x, w["mlp.mlp1_weight"].flatten(0, 1), w["mlp.mlp1_bias"].flatten()
    )  # (T, E 2 I)
    hidden = ops.swiglu(up, limit).view(-1, count, inner)  # (T, E, I)
    hidden = (hidden * dense[..., None].to(x.dtype)).flatten(-2)  # (T, E I)
    down = w["mlp.mlp2_weight"].transpose(0, 1).reshape(width, count * inner)
    return functional.linear(hidden, down) + dense.to(x.dtype) @ w["mlp.mlp2_bias"]


def balance_term(logits: Tensor, dense: Tensor, chosen: int) -> Tensor:
    """E sum_e f_e p_e (Fedus et al., arXiv:2101.03961, eq. 4), with f the share of choices."""
    share = (dense > 0).float().mean(dim=0) / chosen  # (E,)
    probability = torch.softmax(logits, dim=-1).mean(dim=0)  # (E,)
    return logits.shape[-1] * (share * probability).sum()
