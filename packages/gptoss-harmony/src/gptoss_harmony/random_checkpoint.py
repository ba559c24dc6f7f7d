"""Checkpoints with random weights of any size, for tests and benchmarks.

```
random_checkpoint("tiny", tiny_config(), seed=1)
random_checkpoint("20b", gpt_oss_20b(), seed=1)     # 13.8 GB, written with little memory
```

The same config and seed give the same weights in every layout and under any sharding. Values are
sane: activations neither vanish nor explode, all 16 codes and several scales occur.
"""

from __future__ import annotations

import math
import os
import statistics
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_harmony import bfloat16, mxfp4
from gptoss_harmony.checkpoint_writer import CheckpointWriter
from gptoss_harmony.config import MXFP4_BLOCK, ModelConfig
from gptoss_harmony.layout import Layout, TensorSpec, tensor_specs

_CHUNK_BYTES = 16 << 20
_CODE_RMS = 2.926  # root mean square of the 16 code values


def tiny_config(**changes: Any) -> ModelConfig:
    """A model of 2 layers that hides no mistake: hidden != intermediate, 3 kv heads in groups of 2.

    Args:
        changes: fields to set otherwise.
    """
    sizes: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_experts": 5,
        "experts_per_token": 2,
        "vocab_size": 201_088,
        "hidden_size": 64,
        "intermediate_size": 96,
        "swiglu_limit": 7.0,
        "head_dim": 64,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "sliding_window": 128,
        "initial_context_length": 4096,
        "rope_theta": 150_000.0,
        "rope_scaling_factor": 32.0,
        "rope_ntk_alpha": 1.0,
        "rope_ntk_beta": 32.0,
    }
    return ModelConfig(**(sizes | changes))


def random_checkpoint(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    *,
    seed: int = 0,
    layout: Layout = "original",
    max_shard_bytes: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write a checkpoint of random weights.

    Args:
        folder: must not exist, or be empty.
        config: the sizes.
        seed: same seed, same weights.
        layout: which layout to write.
        max_shard_bytes: None writes one file.
        threads: tensors made at once, 50 MiB each; None: one per core, at most 8.
        progress: called with the number of bytes of each finished tensor.

    Raises:
        CheckpointError: the folder is taken or the disk too small.
    """
    quantiles = _normal_quantiles()

    def write(spec: TensorSpec) -> int:
        written = 0
        for rows in _tensor_rows(spec.name, spec.shape, seed, quantiles):
            writer.append(spec.name, rows)
            written += rows.nbytes
        return written

    with (
        CheckpointWriter(folder, config, layout=layout, max_shard_bytes=max_shard_bytes) as writer,
        ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool,
    ):
        for written in pool.map(write, tensor_specs(config, layout)):
            if progress is not None:
                progress(written)
    return writer.folder


def _tensor_rows(
    name: str, shape: tuple[int, ...], seed: int, quantiles: NDArray[np.float32]
) -> Iterator[NDArray[Any]]:
    """Pieces of one tensor along axis 0."""
    if name.endswith(("_weight.blocks", "_weight.scales")):
        packed = _random_blocks if name.endswith(".blocks") else _random_scales
        yield from packed(name, shape, seed)
    elif name.endswith("_weight"):  # expanded experts: the same numbers as the packed ones
        groups = (*shape[:-1], shape[-1] // MXFP4_BLOCK)
        blocks = _random_blocks(f"{name}.blocks", (*groups, MXFP4_BLOCK // 2), seed)
        scales = _random_scales(f"{name}.scales", groups, seed)
        for block, scale in zip(blocks, scales, strict=True):
            yield bfloat16.from_float32(mxfp4.unpack(block, scale))
    else:
        mean, deviation = _moments(name, shape)
        table = bfloat16.from_float32(mean + deviation * quantiles)
        yield from _random_bf16(name, shape, seed, table)


def _moments(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a bf16 tensor."""
    if name.endswith("norm.scale"):
        return 1.0, 0.1
    if name.endswith((".sinks", "embedding.weight")) and not name.startswith("un"):
        return 0.0, 1.0
    if len(shape) == 1 or name.endswith("_bias"):
        return 0.0, 0.05
    return 0.0, 1.0 / math.sqrt(shape[-1])


def _random_bf16(
    name: str, shape: tuple[int, ...], seed: int, table: NDArray[np.uint16]
) -> Iterator[NDArray[np.uint16]]:
    """Draw from 65,536 equally likely values: a table look-up is much faster than a normal."""
    generator = _generator(name, seed)
    row = math.prod(shape[1:])
    step = max(1, _CHUNK_BYTES // (2 * row))
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        draws = _random_bytes(generator, 2 * count * row).view(np.uint16)
        yield table[draws].reshape(count, *shape[1:])


def _random_blocks(name: str, shape: tuple[int, ...], seed: int) -> Iterator[NDArray[np.uint8]]:
    """Uniform codes, one expert at a time."""
    generator = _generator(name, seed)
    for _ in range(shape[0]):
        data = _random_bytes(generator, math.prod(shape[1:]))
        yield data.reshape(1, *shape[1:])


def _random_scales(name: str, shape: tuple[int, ...], seed: int) -> Iterator[NDArray[np.uint8]]:
    """Three neighbouring scales around 1/sqrt(in), the middle one in half of the blocks."""
    columns = shape[-1] * MXFP4_BLOCK
    middle = 127 + round(math.log2(1.0 / (math.sqrt(columns) * _CODE_RMS)))
    choices = np.array([middle - 1, middle, middle, middle + 1], np.uint8)
    generator = _generator(name, seed)
    for _ in range(shape[0]):
        draws = _random_bytes(generator, math.prod(shape[1:]))
        yield choices[draws & 3].reshape(1, *shape[1:])


def _generator(name: str, seed: int) -> np.random.Generator:
    """A stream of its own for every tensor, so that the order of writing does not matter."""
    return np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))


def _random_bytes(generator: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Uniform bytes, six times as fast as `generator.bytes`."""
    words = generator.integers(0, 1 << 64, -(-count // 8), dtype=np.uint64)
    return words.view(np.uint8)[:count]


def _normal_quantiles() -> NDArray[np.float32]:
    """Midpoint quantiles of the standard normal, 65,536 of them."""
    inverse = statistics.NormalDist().inv_cdf
    return np.array([inverse((i + 0.5) / 65_536) for i in range(65_536)], np.float32)
