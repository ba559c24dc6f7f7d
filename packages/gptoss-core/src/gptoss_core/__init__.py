"""The gpt-oss reference model in plain PyTorch, its weights, sampling and fine-tuning.

Names are imported when they are first used, so `import gptoss_core` does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptoss_core.cache import DenseCache, KVCache, RingCache
    from gptoss_core.errors import CoreError, ParallelError, ShapeError
    from gptoss_core.model import Transformer
    from gptoss_core.parallel import Plan

__all__ = [
    "CoreError",
    "DenseCache",
    "KVCache",
    "ParallelError",
    "Plan",
    "RingCache",
    "ShapeError",
    "Transformer",
]

_HOMES = {
    "CoreError": "errors",
    "DenseCache": "cache",
    "KVCache": "cache",
    "ParallelError": "errors",
    "Plan": "parallel",
    "RingCache": "cache",
    "ShapeError": "errors",
    "Transformer": "model",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
