"""What a training run is told: one frozen record, filled from a recipe file and the command line.

```
settings = Settings.from_mapping({"steps": 200, "optimizer": "muon"})   # unknown keys are errors
```
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gptoss_harmony.errors import UsageError

OPTIMIZERS = ("adamw", "muon")
LORA_TARGETS = ("attention", "router", "experts")
CHANNELS = ("analysis", "commentary", "final")
CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": OPTIMIZERS,
    "lora_targets": LORA_TARGETS,
    "channels": CHANNELS,
    "tail": ("none", "codes"),
    "experts": ("auto", "all", "routed"),
    "start": ("random", "induction"),
    "dtype": ("bfloat16", "float32"),
}

OPTION_HELP: dict[str, str] = {
    "steps": "steps of the whole run",
    "tokens_per_step": "packed positions of one step, padding included",
    "context": "positions of one packed row; longer documents are cut",
    "max_seconds": "stop after this long and save a state to resume; 0: no limit",
    "seed": "of every random choice",
    "shards": "take so many shards of the folder DATA, waiting for those still being written",
    "channels": "assistant channels that carry loss",
    "lora_rank": "rank of the adapters; 0 trains all weights",
    "lora_alpha": "strength of the adapters: their product is scaled by alpha / rank",
    "lora_targets": "what gets adapters: attention, router, experts",
    "start": "initial weights with --init; induction writes heads that copy",
    "rows": ".npy file of the token ids whose rows are trained; default: the ids that occur",
    "tail": "rows of the other ids with --init: random, or codes made from the token's text",
    "tail_candidates": "rows outside --rows that join each step's softmax",
    "rename": "share of documents whose copyable tokens are renamed at random",
    "avoid": ".npy file of ids that nothing is renamed to",
    "optimizer": "muon: Muon for matrices, AdamW for the rest",
    "learning_rate": "of AdamW",
    "matrix_learning_rate": "of Muon",
    "weight_decay": "decoupled, times the learning rate",
    "warmup": "share of the steps in which the learning rate rises",
    "decay": "share of the steps, at the end, in which it falls to zero",
    "clip": "largest norm of the gradient; 0: no limit",
    "balance": "weight of the router's load-balance term",
    "quantize_from": "share of the run after which experts are trained as MXFP4; 1: never",
    "device": "cpu, cuda, cuda:1, mps, or auto",
    "dtype": "of the forward pass; master weights are float32",
    "experts": "all: every expert for every token (fast for small models); routed: the chosen ones",
    "checkpointing": "recompute activations in the backward pass to save memory",
    "compile": "compile the layers; on CUDA with flex_attention",
    "log_every": "steps between two lines of the log",
    "eval_every": "steps between held-out losses; 0: at the end only",
    "held_out": "share of DATA that is held out where --held is not given",
    "save_every": "steps between saved states; 0: at the end only",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train. Each field is an option of `gptoss train` and a key of a recipe's [train].

    What they mean is in OPTION_HELP.
    """

    # length and shape of the run
    steps: int = 100
    tokens_per_step: int = 16_384
    context: int = 1024
    max_seconds: float = 0.0
    seed: int = 0
    shards: int = 0
    # what is learned
    channels: tuple[str, ...] = CHANNELS
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_targets: tuple[str, ...] = ("attention",)
    start: str = "random"
    # vocabulary
    rows: str = ""
    tail: str = "none"
    tail_candidates: int = 4096
    rename: float = 0.0
    avoid: str = ""
    # optimisation
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    matrix_learning_rate: float = 0.01
    weight_decay: float = 0.0
    warmup: float = 0.02
    decay: float = 0.3
    clip: float = 1.0
    balance: float = 0.01
    quantize_from: float = 0.0
    # machine
    device: str = "auto"
    dtype: str = "bfloat16"
    experts: str = "auto"
    checkpointing: bool = False
    compile: bool = False
    # reports
    log_every: int = 10
    eval_every: int = 0
    held_out: float = 0.02
    save_every: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot make a run."""
        _check_choices(self)
        _check_ranges(self)
        if self.tail == "codes" and not self.rows:
            raise UsageError("tail = codes needs rows: the file of the ids that are trained")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from a recipe's table.

        Raises:
            UsageError: on an unknown key or a value of the wrong type.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise UsageError(
                f"unknown training setting {', '.join(unknown)}; known: {', '.join(sorted(fields))}"
            )
        return cls(**{name: _typed(fields[name], value) for name, value in values.items()})


def _typed(field: dataclasses.Field[Any], value: Any) -> Any:
    """The value in the type of the field's default; a list becomes a tuple, an int a float."""
    default = field.default
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        wanted = type(default).__name__
        raise UsageError(f"{field.name}: expected {wanted}, found {value!r}")
    return value


def _check_choices(settings: Settings) -> None:
    """Refuse words that name nothing."""
    for name, choices in CHOICES.items():
        value = getattr(settings, name)
        for item in (value,) if isinstance(value, str) else value:
            if item not in choices:
                raise UsageError(f"{name}: {item!r} is not one of {', '.join(choices)}")


def _check_ranges(settings: Settings) -> None:
    """Refuse numbers outside their range."""
    for name in ("steps", "tokens_per_step", "context", "log_every"):
        if getattr(settings, name) < 1:
            raise UsageError(f"{name} must be at least 1, not {getattr(settings, name)}")
    for name in ("rename", "warmup", "decay", "quantize_from", "held_out"):
        if not 0.0 <= getattr(settings, name) <= 1.0:
            raise UsageError(f"{name} is a share between 0 and 1, not {getattr(settings, name)}")
    if settings.tokens_per_step < settings.context:
        raise UsageError(
            f"tokens_per_step ({settings.tokens_per_step}) is less than one row of context "
            f"({settings.context}); raise it or lower context"
        )
