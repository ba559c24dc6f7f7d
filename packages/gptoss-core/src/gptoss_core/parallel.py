"""Tensor parallelism: each process holds a share of the heads and of every expert.

A `Plan` says which share, and how partial sums are joined. Query and kv heads are split where the
number of processes divides them, else attention is kept whole everywhere. Every expert is split
along its inner width in whole MXFP4 blocks of 32: 90 blocks over 4 processes are 23, 23, 22, 22.
Router, norms and embeddings are kept whole. A layer then needs one sum over processes after
attention and one after the experts' weighted sum.

    group = parallel.connect()                      # under torchrun; one process otherwise
    model = Transformer.from_checkpoint(path, device=group.device, plan=group.plan)
    token = group.share(token)                      # what rank 0 sampled, on every rank
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gptoss_core.errors import ParallelError
from gptoss_harmony.config import MXFP4_BLOCK, ModelConfig


def _same(x: Tensor) -> Tensor:
    """The sum over one process."""
    return x


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One process's share of a model.

    `sum_attention` and `sum_experts` add a tensor up over all processes; where a part is kept
    whole they return it as it is.
    """

    rank: int
    size: int
    heads: range  # query heads held here
    kv_heads: range
    intermediate: range  # inner columns of every expert held here
    sum_attention: Callable[[Tensor], Tensor]
    sum_experts: Callable[[Tensor], Tensor]

    @classmethod
    def whole(cls, config: ModelConfig) -> Plan:
        """Everything in one process."""
        return cls.share(config, rank=0, size=1, reduce=_same)

    @classmethod
    def share(
        cls, config: ModelConfig, *, rank: int, size: int, reduce: Callable[[Tensor], Tensor]
    ) -> Plan:
        """The share of process `rank` of `size`; `reduce` sums a tensor over them.

        Raises:
            ParallelError: more processes than blocks to split.
        """
        blocks, rest = divmod(config.intermediate_size, MXFP4_BLOCK)
        if size > 1 and (rest or blocks < size):
            raise ParallelError(
                f"an expert width of {config.intermediate_size} cannot be split over {size} "
                f"processes in blocks of {MXFP4_BLOCK}; start at most {max(1, blocks)}"
            )
        edges = [(blocks * i // size) * MXFP4_BLOCK for i in (rank, rank + 1)]
        if rank == size - 1:
            edges[1] = config.intermediate_size
        split = config.num_key_value_heads % size == 0
        part, parts = (rank, size) if split else (0, 1)
        return cls(
            rank=rank,
            size=size,
            heads=_part(config.num_attention_heads, part, parts),
            kv_heads=_part(config.num_key_value_heads, part, parts),
            intermediate=range(*edges),
            sum_attention=reduce if split else _same,
            sum_experts=reduce,
        )


def _part(count: int, part: int, parts: int) -> range:
    """The part-th of `parts` equal ranges of `count`."""
    return range(count * part // parts, count * (part + 1) // parts)
