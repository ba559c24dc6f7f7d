"""Initial weights of a model that is trained from scratch.

Matrices are normal with variance 1 / inputs; the two that write to the residual stream start at
zero, so that the model begins as its embedding and unembedding. With `tail = "codes"` both
vocabulary tables start from the tokens' codes (`gptoss_harmony.nano_rows`): the input code in the
first dimensions, the same code, as output, in the next ones, the rest free.

    embedding   row = [code, 0, 0] * 2**0
    unembedding row = [0, code, 0] * 2**-3
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import UsageError

INPUT_EXPONENT, OUTPUT_EXPONENT = 0, -3  # powers of two on the codes
CODE_SIZE = 96


def initial_weights(config: ModelConfig, *, tail: str, seed: int) -> dict[str, Tensor]:
    """Every weight under its `original/` name, experts dense; the tables in bf16, the rest float32.

    Raises:
        UsageError: `tail` is codes and the model is too narrow or its vocabulary another.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / math.sqrt(shape[-1])

    width, inner, count = config.hidden_size, config.intermediate_size, config.num_experts
    weights: dict[str, Tensor] = {}
    weights["embedding.weight"], weights["unembedding.weight"] = (
        coded_tables(config)
        if tail == "codes"
        else (normal(config.vocab_size, width).bfloat16() for _ in range(2))
    )
    for layer in range(config.num_hidden_layers):
        weights |= {
            f"block.{layer}.{name}": tensor
            for name, tensor in {
                "attn.norm.scale": torch.ones(width),
                "attn.qkv.weight": normal(config.qkv_size, width),
                "attn.qkv.bias": torch.zeros(config.qkv_size),
                "attn.sinks": torch.zeros(config.num_attention_heads),
                "attn.out.weight": torch.zeros(width, config.num_attention_heads * config.head_dim),
                "attn.out.bias": torch.zeros(width),
                "mlp.norm.scale": torch.ones(width),
                "mlp.gate.weight": normal(count, width),
                "mlp.gate.bias": torch.zeros(count),
                "mlp.mlp1_weight": normal(count, 2 * inner, width),
                "mlp.mlp1_bias": torch.zeros(count, 2 * inner),
                "mlp.mlp2_weight": torch.zeros(count, width, inner),
                "mlp.mlp2_bias": torch.zeros(count, width),
            }.items()
        }
    weights["norm.scale"] = torch.ones(width)
    return weights


def coded_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Embedding and unembedding made of the tokens' codes, bf16 (V, N) each."""
    from gptoss_harmony.nano_rows import VOCABULARY_SIZE, token_codes

    if config.hidden_size < 2 * CODE_SIZE or config.vocab_size != VOCABULARY_SIZE:
        raise UsageError(
            f"tail = codes needs hidden_size >= {2 * CODE_SIZE} and vocab_size {VOCABULARY_SIZE}, "
            f"not {config.hidden_size} and {config.vocab_size}"
        )
    codes = torch.from_numpy(token_codes(size=CODE_SIZE).astype(np.float32)).bfloat16()
    tables = []
    for place, exponent in ((0, INPUT_EXPONENT), (CODE_SIZE, OUTPUT_EXPONENT)):
        table = torch.zeros(config.vocab_size, config.hidden_size, dtype=torch.bfloat16)
        table[:, place : place + CODE_SIZE] = codes * 2.0**exponent
        tables.append(table)
    return tables[0], tables[1]
