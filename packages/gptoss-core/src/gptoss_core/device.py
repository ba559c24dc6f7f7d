"""Which device to run on: the one that was named, if it is there, or the best one there is.

device = choose_device("auto")   # cuda, else mps, else cpu
"""

from __future__ import annotations

import torch

from gptoss_harmony.errors import UsageError


def choose_device(name: str | torch.device) -> torch.device:
    """Turn a name into a device that is there.

    Args:
        name: cpu, cuda, cuda:1, mps, or auto.

    Raises:
        UsageError: no such device in this computer, or no such kind of device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"there is no device {name!r}; use auto, cpu, cuda or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"the model does not run on {str(name)!r}; use auto, cpu, cuda or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name} was asked for, but PyTorch sees {torch.cuda.device_count()} CUDA GPUs "
            "here; use device cpu, or install a PyTorch build for your GPU"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps was asked for, but this computer has no Metal GPU; use cpu")
    return device
