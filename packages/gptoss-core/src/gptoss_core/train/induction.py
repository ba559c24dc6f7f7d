"""Induction heads written into the initial weights, so that a small model can copy from step 0.

Induction (Olsson et al., arXiv:2209.11895): after `... A B ... A`, say `B`. Two layers do it.

* Layer 0, head 0 attends to the previous position: q and k are biases alone, rotated one step
apart,
  on the fast rotary pairs, so their product peaks at distance 1. It writes the previous token's
  code into the free dimensions.
* Layers 1 and 3 (a spare) have one head in each of two kv groups whose query is the present token's
  code and whose key is the previous token's, both on the slow rotary pairs that hardly turn; the
  value is the token's own code, each head one half of it, and it is written where the unembedding
  reads.

A sink just below a full match lets every head rest where there is nothing to copy. Codes as in
initial.py: residual dimensions [0, C) input code, [C, 2 C) output code, the rest free.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gptoss_core.rope import concentration, inverse_frequencies
from gptoss_core.train.initial import CODE_SIZE
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import UsageError

FAST_PAIRS = 12  # rotary pairs that tell positions apart
FAST_AMPLITUDE = 7.0  # of q and k biases: 10 nats between distance 1 and its neighbours
SLOW_PAIRS = 16  # rotary pairs that match codes: pair 16 turns 0.45 rad in 1,000 positions
MATCH = 22.0  # score of a full match of codes, in nats
SLACK = 6.0  # how far the sink lies below a full match
COPIED = (2.0, 1.0)  # amplitude of the copied code in layers 1 and 3


def write_induction_heads(weights: dict[str, Tensor], config: ModelConfig) -> None:
    """Write the heads into `weights` in place; everything else stays.

    Raises:
        UsageError: the model has too few layers, heads or dimensions.
    """
    free = config.hidden_size - 2 * CODE_SIZE
    if (
        config.num_hidden_layers < 2
        or config.num_key_value_heads < 2
        or config.head_dim < 64
        or free < config.head_dim
    ):
        raise UsageError(
            "induction heads need 2 layers, 2 kv heads, head_dim 64 and a hidden size of "
            f"{2 * CODE_SIZE + 64}; the config has {config.num_hidden_layers}, "
            f"{config.num_key_value_heads}, {config.head_dim} and {config.hidden_size}"
        )
    _previous_token(weights, config)
    for layer, amplitude in zip((1, 3), COPIED, strict=True):
        if layer < config.num_hidden_layers:
            _induction(weights, config, layer, amplitude)


def _previous_token(weights: dict[str, Tensor], config: ModelConfig) -> None:
    """Layer 0, head 0: attend one position back, copy dimensions [0, D) into the free ones."""
    dim, heads = config.head_dim, config.num_attention_heads
    turn = inverse_frequencies(config)[:FAST_PAIRS]
    qkv, bias = weights["block.0.attn.qkv.weight"], weights["block.0.attn.qkv.bias"]
    query, key = slice(0, dim), slice(heads * dim, (heads + 1) * dim)
    qkv[query] = qkv[key] = 0.0
    bias[query][:FAST_PAIRS] = FAST_AMPLITUDE * turn.cos()
    bias[query][dim // 2 : dim // 2 + FAST_PAIRS] = -FAST_AMPLITUDE * turn.sin()
    bias[key][:FAST_PAIRS] = FAST_AMPLITUDE
    gain = FAST_AMPLITUDE**2 * concentration(config) ** 2 / math.sqrt(dim)
    weights["block.0.attn.sinks"][0] = gain * FAST_PAIRS - SLACK  # distance 1 scores gain * pairs
    value = slice((heads + config.num_key_value_heads) * dim, None)
    qkv[value][:dim] = torch.eye(dim, config.hidden_size) * _root_mean_square(config, CODE_SIZE)
    out = weights["block.0.attn.out.weight"]
    out[2 * CODE_SIZE : 2 * CODE_SIZE + dim, :dim] = torch.eye(dim)


def _induction(
    weights: dict[str, Tensor], config: ModelConfig, layer: int, amplitude: float
) -> None:
    """One head in each of the first two kv groups: match previous codes, copy half a code each."""
    dim, heads, groups = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    qkv = weights[f"block.{layer}.attn.qkv.weight"]
    out = weights[f"block.{layer}.attn.out.weight"]
    slow = torch.cat([torch.arange(dim // 2 - SLOW_PAIRS, dim // 2) + i * dim // 2 for i in (0, 1)])
    half = CODE_SIZE // 2
    scale = concentration(config) ** 2 / math.sqrt(dim)
    unit = _root_mean_square(config, CODE_SIZE + dim)  # the state now holds the previous code too
    gain = math.sqrt(MATCH / (scale * len(slow))) * unit
    for group in (0, 1):
        head = group * (heads // groups)
        bits = torch.arange(len(slow)) + group * len(slow)  # of the code, matched by this head
        query, key, value = head * dim, (heads + group) * dim, (heads + groups + group) * dim
        qkv[query : query + dim] = qkv[key : key + dim] = qkv[value : value + dim] = 0.0
        qkv[query + slow, bits] = gain
        qkv[key + slow, 2 * CODE_SIZE + bits] = gain
        part = torch.arange(half)
        qkv[value + part, group * half + part] = unit
        out[CODE_SIZE + group * half + part, head * dim + part] = amplitude
        weights[f"block.{layer}.attn.sinks"][head] = MATCH - SLACK


def _root_mean_square(config: ModelConfig, signs: int) -> float:
    """What the norm divides by: the size of a state that holds this many entries of +-1."""
    return math.sqrt(signs / config.hidden_size)
