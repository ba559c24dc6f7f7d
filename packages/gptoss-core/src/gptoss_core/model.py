"""The gpt-oss transformer, leaves to root: norm, attention, experts, block, transformer.

    x = embedding[token]
    per layer:  x = x + attention(norm(x));  x = x + experts(norm(x))
    logits = unembedding(norm(x))

Parameters carry the names of the `original/` checkpoint. Norms, router, softmax and logits are
float32; everything else follows the weights. The equations are in `ops`, `rope` and `experts`.

    model = Transformer.from_checkpoint("gpt-oss-20b/original", device="cuda")
    logits = model(torch.tensor([1, 2, 3], device="cuda"))   # (T, V)

Dimensions: B sequences of equal length, T tokens, S sequences in a ragged pass, N model width,
H query heads, G kv heads, D head dim, E experts, K experts chosen per token, I expert width,
V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from gptoss_core import ops
from gptoss_core.cache import KVCache
from gptoss_core.errors import ShapeError
from gptoss_core.experts import ExpertWeight, apply_experts, empty_weight
from gptoss_core.parallel import Plan
from gptoss_core.rope import apply_rope, rope_tables
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import ContextOverflow

NORM_EPSILON = 1e-5  # no `original/` config carries it

Experts: TypeAlias = Literal["packed", "dense"]


class Attend(Protocol):
    """Attention of one layer over this pass's tokens and whatever came before them."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(..., T, H, D), (..., T, G, D) twice -> out (..., T, H, D), lse (..., T, H)."""
        ...


class Linear(nn.Linear):
    """A linear layer whose weights are left as they are found: the transformer fills them."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class Embedding(nn.Embedding):
    """A table whose rows are left as they are found: the transformer fills them."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class RMSNorm(nn.Module):
    """Root-mean-square norm with a float32 gain."""

    def __init__(self, config: ModelConfig, *, device: torch.device) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(config.hidden_size, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., N) -> (..., N), in the dtype of `x`."""
        return ops.rms_norm(x, self.scale, NORM_EPSILON)


class AttentionBlock(nn.Module):
    """Norm, fused projection, rotation, attention with sinks, output projection.

    Rows of `qkv`: the query heads, then the key heads, then the value heads.
    """

    def __init__(
        self,
        config: ModelConfig,
        layer: int,
        *,
        plan: Plan,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.heads, self.kv_heads = len(plan.heads), len(plan.kv_heads)
        self.plan = plan
        width, rows = config.hidden_size, self.head_dim * (self.heads + 2 * self.kv_heads)
        self.norm = RMSNorm(config, device=device)
        self.sinks = nn.Parameter(torch.zeros(self.heads, device=device, dtype=dtype))
        self.qkv = Linear(width, rows, device=device, dtype=dtype)
        self.out = Linear(self.heads * self.head_dim, width, device=device, dtype=dtype)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """(..., T, N) -> (..., T, N), the residual included."""
        qkv = self.qkv(self.norm(x))  # (..., T, (H + 2 G) D)
        qkv = qkv.view(*x.shape[:-1], -1, self.head_dim)  # (..., T, H + 2 G, D)
        q, k, v = torch.split(qkv, [self.heads, self.kv_heads, self.kv_heads], dim=-2)
        out, lse = attend(self.layer, apply_rope(q, cos, sin), apply_rope(k, cos, sin), v)
        out = ops.apply_sink(out, lse, self.sinks).flatten(-2)  # (..., T, H D)
        return x + self.plan.sum_attention(self.out(out.to(x.dtype)))


class MLPBlock(nn.Module):
    """Norm, router, and the weighted sum of the chosen experts."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        plan: Plan,
        device: torch.device,
        dtype: torch.dtype,
        experts: Experts,
    ) -> None:
        super().__init__()
        count, width, inner = config.num_experts, config.hidden_size, len(plan.intermediate)
        self.config = config
        self.plan = plan
        self.norm = RMSNorm(config, device=device)
        self.gate = Linear(width, count, device=device, dtype=dtype)
        self.mlp1_weight: ExpertWeight = empty_weight(
            (count, 2 * inner, width), experts, device=device, dtype=dtype
        )
        self.mlp1_bias = nn.Parameter(torch.zeros(count, 2 * inner, device=device, dtype=dtype))
        self.mlp2_weight: ExpertWeight = empty_weight(
            (count, width, inner), experts, device=device, dtype=dtype
        )
        self.mlp2_bias = nn.Parameter(torch.zeros(count, width, device=device, dtype=dtype))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(T, N) normed -> weights (T, K) float32, indices (T, K)."""
        logits = functional.linear(x.float(), self.gate.weight.float(), self.gate.bias.float())
        return ops.route(logits, self.config.experts_per_token)

    def forward(self, x: Tensor) -> Tensor:
        """(..., N) -> (..., N), the residual included."""
        normed = self.norm(x).flatten(0, -2)  # (T, N)
        weights, indices = self.route(normed)
        out = apply_experts(
            normed,
            weights,
            indices,
            mlp1=(self.mlp1_weight, self.mlp1_bias),
            mlp2=(self.mlp2_weight, self.mlp2_bias),
            limit=self.config.swiglu_limit,
        )  # (T, N) float32
        return x + self.plan.sum_experts(out).to(x.dtype).view_as(x)


class Block(nn.Module):
    """One layer: attention, then experts."""

    def __init__(
        self,
        config: ModelConfig,
        layer: int,
        *,
        plan: Plan,
        device: torch.device,
        dtype: torch.dtype,
        experts: Experts,
    ) -> None:
        super().__init__()
        self.attn = AttentionBlock(config, layer, plan=plan, device=device, dtype=dtype)
        self.mlp = MLPBlock(config, plan=plan, device=device, dtype=dtype, experts=experts)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """(..., T, N) -> (..., T, N)."""
        x = self.attn(x, cos, sin, attend)
        x = self.mlp(x)
        return x


class Transformer(nn.Module):
    """The whole model: tokens in, float32 logits out.

    Args:
        config: sizes.
        device: where the weights live: CPU, CUDA or MPS.
        dtype: of weights and activations; bf16 as published, or float32.
        experts: "packed" keeps MXFP4 and expands what a step uses; "dense" is trainable.
        attention: the attention to use in every layer, `ops.attention` unless given.
        plan: this process's share of the heads and experts; everything, unless given.

    The weights of a model made here are random (normal, 0.02); `from_checkpoint` reads them.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        experts: Experts = "dense",
        attention: ops.Attention = ops.attention,
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        device, plan = torch.device(device), plan or Plan.whole(config)
        self.config = config
        self.plan = plan
        self.attention = attention
        size = config.vocab_size, config.hidden_size
        self.embedding = Embedding(*size, device=device, dtype=dtype)
        self.block = nn.ModuleList(
            Block(config, layer, plan=plan, device=device, dtype=dtype, experts=experts)
            for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config, device=device)
        self.unembedding = Linear(size[1], size[0], bias=False, device=device, dtype=dtype)
        if device.type != "meta":
            self._draw()

    def _draw(self) -> None:
        """Fill matrices at random and zero the biases; norms and sinks start as they are."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        experts: Experts = "packed",
        attention: ops.Attention = ops.attention,
        plan: Callable[[ModelConfig], Plan] = Plan.whole,
    ) -> Transformer:
        """Read an `original/` folder or either Hugging Face layout; see `weights.load`."""
        from gptoss_core import weights  # the loader builds this class

        return weights.load(
            path, device=device, dtype=dtype, experts=experts, attention=attention, plan=plan
        )

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.embedding.weight.device

    def forward(
        self, tokens: Tensor, *, cache: KVCache | None = None, last_only: bool = False
    ) -> Tensor:
        """Logits of the next token at every position, or at the last one only.

        Args:
            tokens: (T,), or (B, T) for B sequences of one length without a cache; integers.
            cache: what came before; it takes in these tokens. None: they start at position 0.
            last_only: unembed only each sequence's last position.

        Returns:
            (T, V) or (B, T, V) float32; with `last_only` (1, V) or (B, 1, V).

        Raises:
            ShapeError: other shapes, or a cache with a batch.
            ContextOverflow: more positions than the rotary embedding was stretched for.
        """
        if cache is not None:
            if tokens.dim() != 1:
                raise ShapeError(
                    f"a cache holds one sequence: tokens must be (T,), not {tuple(tokens.shape)}; "
                    "use forward_ragged for several"
                )
            return self.forward_ragged(tokens, [len(tokens)], [cache], last_only=last_only)
        if tokens.dim() not in (1, 2) or tokens.shape[-1] == 0:
            raise ShapeError(f"tokens must be (T,) or (B, T), T >= 1, not {tuple(tokens.shape)}")
        self._check_context(tokens.shape[-1])
        positions = torch.arange(tokens.shape[-1], device=self.device)
        x = self._states(tokens, positions, self._attend_batch)  # (..., T, N)
        return self._logits(x[..., -1:, :] if last_only else x)

    def forward_ragged(
        self,
        tokens: Tensor,
        lengths: Sequence[int],
        caches: Sequence[KVCache],
        *,
        last_only: bool = True,
    ) -> Tensor:
        """One pass over the new tokens of several sequences, laid end to end.

        Linear layers, norms and experts see all tokens at once, attention each sequence apart, so
        prompts and single decoded tokens mix freely.

        Args:
            tokens: (T,) integers, T = sum(lengths).
            lengths: new tokens of each sequence, at least one.
            caches: one cache per sequence, which takes them in.
            last_only: unembed only each sequence's last token.

        Returns:
            (S, V) float32, or (T, V) without `last_only`.

        Raises:
            ShapeError: lengths, caches and tokens that do not fit together.
            ContextOverflow: more positions than the rotary embedding was stretched for.
        """
        if tokens.dim() != 1 or len(lengths) != len(caches) or sum(lengths) != len(tokens):
            raise ShapeError(
                f"{tuple(tokens.shape)} tokens, lengths {list(lengths)} and {len(caches)} caches "
                "do not fit together"
            )
        if not lengths or min(lengths) < 1:
            raise ShapeError(f"every sequence needs at least one new token, not {list(lengths)}")
        self._check_context(
            max(cache.length + length for cache, length in zip(caches, lengths, strict=True))
        )
        positions = torch.cat(
            [
                torch.arange(cache.length, cache.length + length, device=self.device)
                for cache, length in zip(caches, lengths, strict=True)
            ]
        )
        x = self._states(tokens, positions, self._attend_ragged(lengths, caches))  # (T, N)
        if last_only:
            x = x[torch.tensor(lengths).cumsum(0).sub(1).to(x.device)]  # (S, N)
        return self._logits(x)

    def _check_context(self, stop: int) -> None:
        """Refuse positions that the rotary embedding was not stretched for."""
        if stop > self.config.max_context_length:
            raise ContextOverflow(
                f"position {stop - 1} lies past the context of {self.config.max_context_length} "
                "tokens; shorten the prompt or the answer"
            )

    def _states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """(..., T) tokens at (T,) positions -> (..., T, N) states before the final norm."""
        x: Tensor = self.embedding(tokens)  # (..., T, N)
        cos, sin = rope_tables(self.config, positions)
        for block in self.block:
            x = block(x, cos, sin, attend)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        """(..., N) -> (..., V) float32."""
        return ops.unembed(self.norm(x), self.unembedding.weight)

    def _attend_batch(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of whole sequences to themselves."""
        return self.attention(q, k, v, window=self.config.window(layer), offset=0)

    def _attend_ragged(self, lengths: Sequence[int], caches: Sequence[KVCache]) -> Attend:
        """Attention of each sequence's new tokens to its own cache."""

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            window, outs, lses = self.config.window(layer), [], []
            pieces = (torch.split(tensor, list(lengths)) for tensor in (q, k, v))
            for cache, new_q, new_k, new_v in zip(caches, *pieces, strict=True):
                start = cache.length
                cache.append(layer, new_k, new_v)
                keys, values, first = cache.view(layer)
                out, lse = self.attention(new_q, keys, values, window=window, offset=start - first)
                outs.append(out)
                lses.append(lse)
            return torch.cat(outs), torch.cat(lses)

        return attend
