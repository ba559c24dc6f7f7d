"""Tensor parallelism: each process holds a share of the heads and of every expert.

A `Plan` says which share, cuts it out of stored tensors, and joins partial sums. Query and kv heads
are split where the number of processes divides them, else attention is kept whole everywhere. Every
expert is split along its inner width in whole MXFP4 blocks of 32: 90 blocks over 4 processes are
22, 23, 22, 23. Router, norms and embeddings are kept whole. A layer then needs one sum over
processes after attention and one after the experts' weighted sum; the biases of the two output
projections are kept by rank 0 and are zero elsewhere, so that the sums count them once.

    group = connect("cpu")                             # under torchrun; one process otherwise
    model = Transformer.from_checkpoint(path, device=group.device, plan=group.plan)
    token = group.share(token)                         # what rank 0 sampled, on every rank
    group.close()
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

from gptoss_core.errors import ParallelError
from gptoss_harmony.config import MXFP4_BLOCK, ModelConfig

T = TypeVar("T")


def _same(x: Tensor) -> Tensor:
    """The sum over one process."""
    return x


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One process's share of a model.

    Attributes:
        config: sizes of the whole model.
        rank: this process.
        size: number of processes.
        heads: query heads held here.
        kv_heads: kv heads held here.
        intermediate: columns of every expert's inner width held here.
        sum_attention: adds attention's output up over processes; the identity if kept whole.
        sum_experts: adds the experts' weighted sum up over processes.
    """

    config: ModelConfig
    rank: int
    size: int
    heads: range
    kv_heads: range
    intermediate: range
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
        """The share of process `rank` of `size`.

        Args:
            config: sizes of the whole model.
            rank: from 0.
            size: number of processes.
            reduce: adds a tensor up over the processes.

        Raises:
            ParallelError: more processes than blocks to split.
        """
        blocks, rest = divmod(config.intermediate_size, MXFP4_BLOCK)
        if size > 1 and (rest or blocks < size):
            raise ParallelError(
                f"an expert width of {config.intermediate_size} cannot be split over {size} "
                f"processes in blocks of {MXFP4_BLOCK}; start at most {1 if rest else blocks}"
            )
        split = config.num_key_value_heads % size == 0
        part, parts = (rank, size) if split else (0, 1)
        inner = _part(blocks, rank, size)
        return cls(
            config=config,
            rank=rank,
            size=size,
            heads=_part(config.num_attention_heads, part, parts),
            kv_heads=_part(config.num_key_value_heads, part, parts),
            intermediate=(
                _scaled(inner, MXFP4_BLOCK) if size > 1 else range(config.intermediate_size)
            ),
            sum_attention=reduce if split else _same,
            sum_experts=reduce,
        )

    def cut(self, name: str, tensor: Tensor) -> Tensor:
        """This process's part of a whole tensor, a view where one range is enough.

        Args:
            name: canonical name in the checkpoint.
            tensor: whole, in canonical axis order.
        """
        if self.size == 1:
            return tensor
        _, _, _, leaf = name.split(".", 3) if name.startswith("block.") else ("", "", "", name)
        if self.rank > 0 and leaf in self._biases_of_sums():
            return torch.zeros_like(tensor)
        if leaf not in self._cuts():
            return tensor
        axis, ranges = self._cuts()[leaf]
        if len(ranges) == 1:
            return tensor.narrow(axis, ranges[0].start, len(ranges[0]))
        return torch.cat([tensor.narrow(axis, r.start, len(r)) for r in ranges], dim=axis)

    def _biases_of_sums(self) -> set[str]:
        """Biases added after a sum over processes, which only rank 0 may hold."""
        return {"mlp2_bias"} | ({"out.bias"} if self.sum_attention is self.sum_experts else set())

    def _cuts(self) -> dict[str, tuple[int, Sequence[range]]]:
        """Tensor in a block -> the axis that is split and the ranges of it held here."""
        dim, inner = self.config.head_dim, self.intermediate
        keys = self.config.num_attention_heads * dim  # the row where key heads start
        values = keys + self.config.num_key_value_heads * dim
        queries, group = _scaled(self.heads, dim), _scaled(self.kv_heads, dim)
        qkv = [queries, _shifted(group, keys), _shifted(group, values)]
        blocks = range(inner.start // MXFP4_BLOCK, inner.stop // MXFP4_BLOCK)
        up = _scaled(inner, 2)  # gate and up rows alternate, so pairs stay together
        return {
            "qkv.weight": (0, qkv),
            "qkv.bias": (0, qkv),
            "sinks": (0, [self.heads]),
            "out.weight": (1, [queries]),
            "mlp1_weight": (1, [up]),
            "mlp1_weight.blocks": (1, [up]),
            "mlp1_weight.scales": (1, [up]),
            "mlp1_bias": (1, [up]),
            "mlp2_weight": (2, [inner]),
            "mlp2_weight.blocks": (2, [blocks]),
            "mlp2_weight.scales": (2, [blocks]),
        }


def _part(count: int, part: int, parts: int) -> range:
    """The part-th of `parts` nearly equal ranges of `count`."""
    return range(count * part // parts, count * (part + 1) // parts)


def _scaled(indices: range, factor: int) -> range:
    """The rows of `indices` where each has `factor` of them."""
    return range(indices.start * factor, indices.stop * factor)


def _shifted(indices: range, offset: int) -> range:
    """The same number of rows, `offset` further."""
    return range(indices.start + offset, indices.stop + offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The processes of one launch, seen from one of them.

    Attributes:
        rank: this process; 0 samples, prints and talks to the world.
        size: number of processes.
        device: this process's device.
    """

    rank: int
    size: int
    device: torch.device

    def plan(self, config: ModelConfig) -> Plan:
        """This process's share of a model of these sizes."""
        return Plan.share(config, rank=self.rank, size=self.size, reduce=self.sum)

    def sum(self, x: Tensor) -> Tensor:
        """Add `x` up over all processes, in place; returns it."""
        if self.size > 1:
            distributed.all_reduce(x)
        return x

    def share(self, x: Tensor) -> Tensor:
        """Overwrite `x` with rank 0's, on this process's device; returns it."""
        if self.size > 1:
            distributed.broadcast(x, src=0)
        return x

    def share_object(self, value: T) -> T:
        """Rank 0's value on every rank: a prompt, a list of tokens, a setting."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def close(self) -> None:
        """Leave the group; call it on every rank, also after a failure."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


def connect(device: str | None = None) -> Group:
    """Join the processes that torchrun started, or be the only one.

    Reads WORLD_SIZE, RANK and LOCAL_RANK from the environment; without WORLD_SIZE this process is
    alone. On CUDA each process takes the GPU of its LOCAL_RANK and talks through NCCL, elsewhere
    through gloo.

    Args:
        device: "cuda" or "cpu"; None takes CUDA where there is a GPU.

    Raises:
        ParallelError: fewer GPUs than processes on this host, or a device without communication.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group(rank=0, size=1, device=torch.device(kind))
    if kind not in ("cuda", "cpu"):
        raise ParallelError(f"several processes can share cuda or cpu, not {kind}")
    local = int(os.environ["LOCAL_RANK"])
    place = torch.device(kind)
    if kind == "cuda":
        if local >= torch.cuda.device_count():
            raise ParallelError(
                f"process {local} of this host has no GPU: there are {torch.cuda.device_count()}; "
                f"start torchrun with --nproc-per-node {max(1, torch.cuda.device_count())}"
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo", device_id=place if kind == "cuda" else None
    )
    return Group(rank=distributed.get_rank(), size=size, device=place)
