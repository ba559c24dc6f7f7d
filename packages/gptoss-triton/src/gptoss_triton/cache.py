"""Paged keys and values: one pool for the layers that see everything, one for the windowed ones.

A page holds 64 positions of every layer of its kind. Windowed layers give their pages back once no
query can reach them, so a sequence holds three or four of them at any length.

Dimensions: G kv heads, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_harmony.config import ModelConfig
from gptoss_triton.rope_cache import PAGE

PAGE_SIZE: int = PAGE.value


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedCache:
    """Keys and values of all layers.

    Attributes:
        full: (layers, 2, pages, G, 64, D) of the layers without a window.
        windowed: the same of the others.
        config: tells which layer is which.
    """

    full: Tensor
    windowed: Tensor
    config: ModelConfig

    @classmethod
    def empty(
        cls,
        config: ModelConfig,
        *,
        full_pages: int,
        window_pages: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> PagedCache:
        """Room for so many pages of each kind."""
        windows = [config.window(layer) for layer in range(config.num_hidden_layers)]

        def pool(layers: int, pages: int) -> Tensor:
            tail = (config.num_key_value_heads, PAGE_SIZE, config.head_dim)
            return torch.empty((layers, 2, pages, *tail), dtype=dtype, device=device)

        return cls(
            full=pool(sum(window is None for window in windows), full_pages),
            windowed=pool(sum(window is not None for window in windows), window_pages),
            config=config,
        )

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, (pages, G, 64, D) each."""
        windowed = self.config.window(index) is not None
        same = [(self.config.window(i) is not None) == windowed for i in range(index)]
        keys, values = (self.windowed if windowed else self.full)[sum(same)]
        return keys, values


def page_bytes(config: ModelConfig, itemsize: int) -> tuple[int, int]:
    """Bytes of one full and one windowed page, all layers of the kind."""
    one = 2 * config.num_key_value_heads * PAGE_SIZE * config.head_dim * itemsize
    windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
    full = sum(window is None for window in windows)
    return full * one, (len(windows) - full) * one
