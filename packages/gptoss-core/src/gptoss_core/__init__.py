"""The gpt-oss reference model in plain PyTorch, its weights, sampling and fine-tuning.

Names are imported when they are first used, so `import gptoss_core` does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptoss_core.cache import DenseCache, KVCache, RingCache
    from gptoss_core.engine import TorchEngine
    from gptoss_core.errors import CoreError, ParallelError, ShapeError
    from gptoss_core.model import Transformer
    from gptoss_core.options import TorchOptions
    from gptoss_core.parallel import Group, Plan, connect
    from gptoss_core.sampling import LogitsStep

__all__ = [
    "CoreError",
    "DenseCache",
    "Group",
    "KVCache",
    "LogitsStep",
    "ParallelError",
    "Plan",
    "RingCache",
    "ShapeError",
    "TorchEngine",
    "TorchOptions",
    "Transformer",
    "connect",
]

_HOMES = {
    "CoreError": "errors",
    "DenseCache": "cache",
    "Group": "parallel",
    "KVCache": "cache",
    "LogitsStep": "sampling",
    "ParallelError": "errors",
    "Plan": "parallel",
    "RingCache": "cache",
    "ShapeError": "errors",
    "TorchEngine": "engine",
    "TorchOptions": "options",
    "Transformer": "model",
    "connect": "parallel",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
