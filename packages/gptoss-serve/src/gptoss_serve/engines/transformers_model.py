"""From a checkpoint to a Transformers model: the folder it reads, where it goes, what it takes.

Transformers reads the Hugging Face layout. Any other checkpoint, nano included, is converted on
first use into the user's cache, as for vLLM: names change, bytes do not.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from gptoss_harmony import Checkpoint, ModelConfig
from gptoss_harmony.errors import CheckpointError, NotInstalled, OutOfMemory, UsageError
from gptoss_serve.engines.hugging_face_folder import hugging_face_folder

if TYPE_CHECKING:
    import torch

MISSING = "it needs torch, transformers and accelerate: pip install 'gptoss-serve[transformers]'"
# Share of the memory left after loading that keys and values may take.
CACHE_SHARE = {"cpu": 0.25, "mps": 0.4, "cuda": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersOptions:
    """How to load and serve a checkpoint. The help texts below say what each field does."""

    device: str = field(
        default="auto", metadata={"help": "cpu, cuda, cuda:1, mps; auto: cuda, else mps, else cpu"}
    )
    dtype: Literal["bfloat16", "float16", "float32"] = field(
        default="bfloat16", metadata={"help": "of weights and activations"}
    )
    experts: Literal["dense", "packed"] = field(
        default="dense",
        metadata={
            "help": "dense expands MXFP4 when loading and runs anywhere; packed keeps it, with "
            "Transformers' own kernels, which need CUDA and the package kernels"
        },
    )
    attention: str = field(
        default="eager",
        metadata={"help": "attention of Transformers, for example flash_attention_3"},
    )
    context: int | None = field(
        default=None,
        metadata={"help": "most tokens of prompt and answer; unset: what the model has"},
    )
    batching: Literal["auto", "on", "off"] = field(
        default="auto",
        metadata={"help": "Transformers' continuous batching; auto: where this release has it"},
    )
    max_batch: int = field(default=16, metadata={"help": "most requests that run at once"})
    prefill_chunk: int = field(
        default=512, metadata={"help": "tokens of prompts that one step takes through the model"}
    )
    kv_memory: float | None = field(
        default=None,
        metadata={"help": "GiB for keys and values; unset: a share of what is free after loading"},
    )
    prefix_reuse: bool = field(
        default=True,
        metadata={"help": "keep the caches of finished requests for prompts like them"},
    )

    def __post_init__(self) -> None:
        """Refuse values that cannot work, naming the field."""
        for name in ("context", "max_batch", "prefill_chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if self.kv_memory is not None and not 0 < self.kv_memory < float("inf"):
            raise UsageError(f"kv_memory must be a positive number of GiB, not {self.kv_memory}")


def missing() -> str | None:
    """Say which package is not installed, or None."""
    names = ("torch", "transformers", "accelerate")
    absent = [name for name in names if find_spec(name) is None]
    return f"{', '.join(absent)} not installed; {MISSING}" if absent else None


def load_model(source: Checkpoint, options: TransformersOptions) -> Any:
    """Load a checkpoint as a Transformers model, ready to run.

    Raises:
        HarmonyError: a package, the device or the memory is not there, or the options do not fit.
    """
    if problem := missing():
        raise NotInstalled(f"engine transformers cannot run: {problem}")
    import torch
    import transformers

    device = choose_device(options.device)
    extra: dict[str, Any] = {}
    if source.layout != "hf-bf16":
        packed = options.experts == "packed"
        if packed and device.type != "cuda":
            raise UsageError(f"packed experts need a CUDA GPU, not {device}; use experts dense")
        extra["quantization_config"] = transformers.Mxfp4Config(dequantize=not packed)
    folder = source.path
    if source.layout == "original":
        folder = hugging_face_folder(str(source.path), experts="mxfp4")
    try:
        with _quiet(transformers):
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, options.dtype),
                attn_implementation=options.attention,
                device_map=str(device),
                local_files_only=True,
                **extra,
            )
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"{folder} does not fit on {device} as {options.dtype}; use experts packed, or another "
            "engine"
        ) from error
    except (ImportError, OSError, ValueError) as error:
        raise CheckpointError(f"Transformers cannot load {folder}: {error}") from error
    return model.eval().requires_grad_(False)


def choose_device(name: str) -> torch.device:
    """Turn a name into a device that is there.

    Raises:
        UsageError: no such device in this computer.
    """
    import torch

    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"there is no device {name!r}; use auto, cpu, cuda or mps") from error
    if not there.get(device.type, False) or (device.index or 0) >= _count(device):
        raise UsageError(f"device {name} is not in this computer; use auto or cpu")
    return device


def context_of(options: TransformersOptions, config: ModelConfig) -> int:
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


def cache_capacity(options: TransformersOptions, device: torch.device) -> int:
    """Bytes that keys and values may take: as asked, or a share of what is free now."""
    if options.kv_memory is not None:
        return int(options.kv_memory * 2**30)
    if device.type == "cuda":
        import torch

        free = torch.cuda.mem_get_info(device)[0]
    else:
        import psutil  # accelerate brings it

        free = psutil.virtual_memory().available
    return int(free * CACHE_SHARE[device.type])


def twin(model: Any) -> Any:
    """Return a model with the same tensors and a configuration of its own.

    Continuous batching changes the configuration of its model, which would reach requests that run
    beside it.
    """
    return _twin(model, {})


def _twin(module: Any, configs: dict[int, Any]) -> Any:
    new = copy.copy(module)
    new._modules = {
        name: None if child is None else _twin(child, configs)
        for name, child in module._modules.items()
    }
    config = getattr(module, "config", None)
    if config is not None:
        new.config = configs.setdefault(id(config), copy.deepcopy(config))
    return new


def _count(device: torch.device) -> int:
    import torch

    return torch.cuda.device_count() if device.type == "cuda" else 1


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep progress bars and advice of the library off the terminal while a model loads."""
    settings = transformers.utils.logging
    level, bars = settings.get_verbosity(), settings.is_progress_bar_enabled()
    settings.set_verbosity_error()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        settings.set_verbosity(level)
        if bars:
            settings.enable_progress_bar()
