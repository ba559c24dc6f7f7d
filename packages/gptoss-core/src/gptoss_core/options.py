"""The options of engine `torch`; command lines make a flag of each field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import UsageError

SMALL_EXPERTS = 1 << 30  # bytes up to which `auto` expands them
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchOptions:
    """How to load and serve a checkpoint. The help texts below say what each field does."""

    device: str = field(
        default="auto", metadata={"help": "cpu, cuda, cuda:1, mps; auto: cuda, else mps, else cpu"}
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto", metadata={"help": "of weights and activations; auto: bfloat16"}
    )
    experts: Literal["auto", "packed", "dense"] = field(
        default="auto",
        metadata={
            "help": "packed keeps MXFP4 in memory; dense expands it: faster, 4 times the memory; "
            "auto: dense up to 1 GiB, else packed"
        },
    )
    context: int | None = field(
        default=None,
        metadata={"help": "most tokens of prompt and answer; unset: what the model has"},
    )
    max_batch: int = field(default=16, metadata={"help": "most requests that run at once"})
    prefill_chunk: int = field(
        default=1024, metadata={"help": "tokens that one step takes through the model"}
    )
    kv_memory: float | None = field(
        default=None,
        metadata={"help": "GiB for keys and values; unset: a share of what is free after loading"},
    )
    prefix_reuse: bool = field(
        default=True,
        metadata={"help": "keep the caches of finished requests for prompts like them"},
    )
    deterministic: bool = field(
        default=False,
        metadata={
            "help": "same tokens whatever else runs; costs batching and prefix reuse: each request "
            "goes through the model alone"
        },
    )
    threads: int | None = field(
        default=None, metadata={"help": "CPU threads; unset: what PyTorch chooses"}
    )

    def __post_init__(self) -> None:
        """Refuse values that cannot work, naming the field."""
        least = {"context": 1, "max_batch": 1, "prefill_chunk": 1, "threads": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UsageError(f"{name} must be at least {bound}, not {value}")
        if self.kv_memory is not None and not 0 < self.kv_memory < float("inf"):
            raise UsageError(f"kv_memory must be a positive number of GiB, not {self.kv_memory}")
        if self.dtype not in ("auto", *DTYPES):
            raise UsageError(f"dtype must be auto, {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.experts not in ("auto", "packed", "dense"):
            raise UsageError(f"experts must be auto, packed or dense, not {self.experts!r}")


def choose_context(options: TorchOptions, config: ModelConfig) -> int:
    """Most tokens of prompt and answer: as asked, or all that the model has.

    Raises:
        UsageError: more than the model has.
    """
    longest = config.max_context_length
    if options.context is not None and options.context > longest:
        raise UsageError(
            f"context {options.context} is more than the {longest} tokens of the model"
        )
    return options.context or longest


def choose_dtype(name: str) -> torch.dtype:
    """Turn an option into a dtype; the weights were published in bf16, so auto keeps that."""
    return torch.bfloat16 if name == "auto" else DTYPES[name]


def choose_experts(
    name: Literal["auto", "packed", "dense"], config: ModelConfig, dtype: torch.dtype
) -> Literal["packed", "dense"]:
    """Turn an option into a form of the experts; auto expands those of a small model."""
    if name != "auto":
        return name
    matrices = config.num_hidden_layers * config.num_experts * 3  # gate, up and down
    expanded = matrices * config.hidden_size * config.intermediate_size * dtype.itemsize
    return "dense" if expanded <= SMALL_EXPERTS else "packed"
