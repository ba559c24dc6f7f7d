"""The options of engine `triton`; command lines make a flag of each field."""

from __future__ import annotations

from dataclasses import dataclass, field

from gptoss_harmony.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonOptions:
    """How to load and serve a checkpoint. The help texts below say what each field does."""

    device: str = field(default="cuda", metadata={"help": "cuda, or cuda:1 for the second GPU"})
    gpu_memory: float = field(
        default=0.9, metadata={"help": "share of the GPU's memory to use, weights included"}
    )
    context: int | None = field(
        default=None,
        metadata={"help": "most tokens of prompt and answer; unset: what model and memory allow"},
    )
    max_batch: int = field(default=256, metadata={"help": "most requests that run at once"})
    step_tokens: int | None = field(
        default=None,
        metadata={"help": "most tokens of one step; unset: up to 8192, fewer on a small GPU"},
    )
    prefix_reuse: bool = field(
        default=True, metadata={"help": "keep what was computed for prompts that begin alike"}
    )
    deterministic: bool = field(
        default=False,
        metadata={
            "help": "the same request and seed give the same tokens whatever else runs; slower"
        },
    )
    graphs: bool = field(
        default=True, metadata={"help": "replay decode steps as CUDA graphs; off: for debugging"}
    )

    def __post_init__(self) -> None:
        """Refuse values outside their range, naming the flag."""
        if not 0.05 <= self.gpu_memory <= 1.0:
            raise UsageError(f"--gpu-memory must be in 0.05..1, not {self.gpu_memory}")
        if self.context is not None and self.context < 1:
            raise UsageError(f"--context must be at least 1, not {self.context}")
        if not 1 <= self.max_batch <= 4096:
            raise UsageError(f"--max-batch must be in 1..4096, not {self.max_batch}")
        if self.step_tokens is not None and self.step_tokens <= self.max_batch:
            raise UsageError(
                f"--step-tokens ({self.step_tokens}) must exceed --max-batch ({self.max_batch})"
            )
