"""What a run writes: an `original/` checkpoint that every engine loads, and a state to resume from.

```
OUT/original/config.json, model.safetensors     experts in MXFP4, the rest bf16
OUT/state.pt                                     masters, optimizer moments, step
OUT/log.jsonl                                    one line per report
```
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptoss_core.train.parameters import EXPERTS
from gptoss_harmony import mxfp4
from gptoss_harmony.checkpoint_writer import write_checkpoint
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import UsageError


def save_original(folder: Path, config: ModelConfig, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Write an `original/` checkpoint, replacing an earlier one of the same run.

    Args:
        folder: where to; an existing one is replaced once the new one is complete.
        config: sizes.
        weights: every weight under its name, experts dense.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    fresh = folder.with_name(folder.name + ".new")
    if fresh.exists():
        shutil.rmtree(fresh)
    write_checkpoint(fresh, config, _packed(weights))
    if folder.exists():
        shutil.rmtree(folder)
    fresh.rename(folder)


def _packed(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Stored tensors: experts as blocks and scales, all else as bf16 bits."""
    for name, weight in weights:
        if name.endswith(EXPERTS):
            blocks, scales = mxfp4.pack(weight.float().cpu().numpy())
            yield f"{name}.blocks", blocks
            yield f"{name}.scales", scales
        else:
            bits = weight.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy()
            yield name, bits.view(np.uint16)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a resumable state, whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_state` wrote; only tensors and plain values are accepted.

    Raises:
        UsageError: there is no such file, or it is something else.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist: there is no run to resume") from error
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(f"{path} is not the state of a run: {error}") from error
    if not isinstance(state, dict) or {"step", "trained", "optimizers", "settings"} - set(state):
        raise UsageError(f"{path} is not the state of a run: entries are missing")
    return state
