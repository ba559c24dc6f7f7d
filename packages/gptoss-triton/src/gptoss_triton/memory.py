"""What fits on the GPU, decided before anything is loaded.

    capacity = weights + rotary tables + activations of one step + logits and graphs + pages

The plan takes the options as far as they are given, and otherwise starts generous and shrinks the
step and then the batch until pages for at least one sequence of the wanted context are left.

Dimensions: N model width, I expert width, H query heads, D head dim, K experts per token, V rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import OutOfMemory
from gptoss_triton.cache import PAGE_SIZE, page_bytes
from gptoss_triton.options import TritonOptions

STEP_CHOICES = (8192, 4096, 2048, 1024, 512, 256)
SLACK = 1.25  # what the allocator's rounding and the vendor's GEMM add to activations
FIXED_BYTES = 768 << 20  # CUDA context, compiled kernels, GEMM workspace
GRAPH_BYTES = 24 << 20  # of one captured batch size beside its activations
PARTS = 2  # of a sequence's keys in a large batch, as the tuning table has them
FIXED_PARTS = 16  # the same in the fixed table
LONE_PARTS = 128  # of a whole batch, where it is small
SHARES = 8  # of the router's columns
GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes by purpose, and the sizes that follow.

    Attributes:
        weights: packed experts and everything else.
        work: activations, logits, rotary tables, graphs.
        pages: keys and values.
        context: most tokens of one sequence.
        max_batch: most sequences at once.
        step_tokens: most tokens of a step.
        full_pages: pages of the layers without a window.
        window_pages: pages of the windowed layers.
    """

    weights: int
    work: int
    pages: int
    context: int
    max_batch: int
    step_tokens: int
    full_pages: int
    window_pages: int

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"memory: weights {self.weights / GIB:.1f} GiB, work {self.work / GIB:.1f} GiB, keys "
            f"and values {self.pages / GIB:.1f} GiB for {self.full_pages * PAGE_SIZE:,} tokens; "
            f"context {self.context:,}, up to {self.max_batch} requests, {self.step_tokens} "
            "tokens a step"
        )


def weight_bytes(config: ModelConfig) -> int:
    """All weights on the device, the panels' padding included."""
    width, inner = config.hidden_size, config.intermediate_size
    attention = config.num_attention_heads * config.head_dim

    def packed(rows: int, columns: int) -> int:
        panels = math.ceil(columns / 64)
        return rows * (panels * 32 + math.ceil(panels / 2) * 4 + 2)

    experts = config.num_experts * (packed(2 * inner, width) + packed(width, inner))
    dense = (config.qkv_size + attention + config.num_experts) * width
    small = config.qkv_size + 3 * width + config.num_attention_heads + config.num_experts
    layer = experts + 2 * (dense + small)
    return config.num_hidden_layers * layer + 2 * (2 * config.vocab_size + 1) * width


def work_bytes(
    config: ModelConfig, *, max_batch: int, step_tokens: int, deterministic: bool = False
) -> int:
    """Everything but weights and pages."""
    width, top = config.hidden_size, config.experts_per_token
    attention = config.num_attention_heads * config.head_dim
    token = 16 * width + 2 * (config.qkv_size + attention)
    token += 2 * top * (config.intermediate_size + 2 * width)
    # Programs that share a result: parts of a sequence's keys, and of the router's columns.
    parts = FIXED_PARTS if deterministic else PARTS
    heads = config.num_attention_heads * (config.head_dim + 2)
    scratch = 4 * heads * max(LONE_PARTS, parts * max_batch)
    scratch += 4 * config.num_experts * SHARES * step_tokens
    logits = 2 * 4 * config.vocab_size * max_batch  # of the graphs, and of a step with chunks
    rope = 4 * config.max_context_length * config.head_dim
    graphs = GRAPH_BYTES * (4 + int(math.log2(max_batch)))
    return int(SLACK * (token * step_tokens + logits)) + scratch + rope + graphs + FIXED_BYTES


def plan_memory(config: ModelConfig, capacity: int, options: TritonOptions) -> MemoryPlan:
    """Divide the memory.

    Args:
        config: sizes.
        capacity: bytes that may be used.
        options: what the user fixed.

    Raises:
        OutOfMemory: the model, or one sequence of the wanted context, does not fit.
    """
    weights = weight_bytes(config)
    longest = config.max_context_length
    wanted = min(options.context or longest, longest)
    steps = STEP_CHOICES if options.step_tokens is None else (options.step_tokens,)
    best: MemoryPlan | None = None
    batch = options.max_batch
    while batch >= 1:
        for step in [step for step in steps if step > batch]:
            work = work_bytes(
                config, max_batch=batch, step_tokens=step, deterministic=options.deterministic
            )
            plan = _divide(config, capacity, weights, work, wanted, batch, step)
            if plan is None:
                continue
            if plan.context >= wanted:
                return plan
            if best is None or plan.context > best.context:
                best = plan
        batch //= 2
    if best is None or options.context is not None:
        raise OutOfMemory(_refusal(config, capacity, weights, wanted, best))
    return best


def _divide(
    config: ModelConfig, capacity: int, weights: int, work: int, wanted: int, batch: int, step: int
) -> MemoryPlan | None:
    """The pages that are left with these sizes; None if there are too few to work."""
    full, windowed = page_bytes(config, 2)
    left = capacity - weights - work
    blocks = math.ceil(config.sliding_window / PAGE_SIZE) + 2
    least = min(batch, 64) * blocks + math.ceil(step / PAGE_SIZE) + blocks
    if left < least * windowed + full * blocks:
        return None
    # An eighth of the windowed pages on top holds the ends of old prefixes.
    full_pages = int((left - least * windowed) // (full + windowed / 8))
    window_pages = least + full_pages // 8
    return MemoryPlan(
        weights=weights,
        work=work,
        pages=full_pages * full + window_pages * windowed,
        context=min(wanted, (full_pages - 1) * PAGE_SIZE),
        max_batch=batch,
        step_tokens=step,
        full_pages=full_pages,
        window_pages=window_pages,
    )


def _refusal(
    config: ModelConfig, capacity: int, weights: int, wanted: int, best: MemoryPlan | None
) -> str:
    """Say what is missing and what helps."""
    head = (
        f"the model needs {weights / GIB:.1f} GiB for its weights alone"
        if best is None
        else (
            f"{wanted:,} tokens of context do not fit beside {weights / GIB:.1f} GiB of weights; "
            f"{best.context:,} would"
        )
    )
    return (
        f"{head}, and this GPU offers {capacity / GIB:.1f} GiB: free memory held by other "
        "programs, raise --gpu-memory, lower --context or --max-batch, or take a smaller model"
    )
