"""From one layout to another, a few rows at a time.

`original` and `hf-mxfp4` hold the same bytes under other names, so converting between them copies
them. Expanding MXFP4 to bf16 is exact. Packing bf16 rounds, except where the values came from
MXFP4: then the numbers are the same again (and so are the bytes, unless a block's largest value was
stored under a larger scale than it needed).

```
conversion = convert_checkpoint(Checkpoint.open("nano"), "nano-hf", layout="hf-mxfp4")
conversion.folder, conversion.rounded      # .../nano-hf, 0
```
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_harmony import bfloat16, mxfp4
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.checkpoint_writer import CheckpointWriter
from gptoss_harmony.config import MXFP4_BLOCK
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.layout import Layout
from gptoss_harmony.transpose import transposed

_CHUNK_BYTES = 16 << 20
# What Transformers reads beside the weights, copied where the source folder has it.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What a conversion did.

    Attributes:
        folder: the new checkpoint.
        layout: its layout.
        nbytes: bytes of its tensors.
        values: expert values that were packed.
        rounded: how many of them changed.
        copied: names of the tokenizer files that came along.
    """

    folder: Path
    layout: Layout
    nbytes: int
    values: int
    rounded: int
    copied: tuple[str, ...]


def convert_checkpoint(
    source: Checkpoint,
    folder: str | os.PathLike[str],
    *,
    layout: Layout,
    max_shard_bytes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Conversion:
    """Write `source` in another layout; the folder appears when it is complete.

    Args:
        source: any opened checkpoint.
        folder: must not exist, or be empty.
        layout: "original", "hf-mxfp4" or "hf-bf16".
        max_shard_bytes: start a new file before one exceeds this; None writes one file.
        progress: called with the number of source bytes after each piece.

    Raises:
        CheckpointError: the folder is taken, the disk too small, a scale is NaN, or a value that
            should be packed is not finite.
    """
    counts = _Counts()
    copied = _tokenizer_files(source.path) if layout != "original" else []
    with CheckpointWriter(
        folder, source.config, layout=layout, max_shard_bytes=max_shard_bytes
    ) as writer:
        for path in copied:
            writer.add_file(path)
        for name, rows, source_bytes in _converted(source, layout, counts):
            writer.append(name, rows)
            if progress is not None:
                progress(source_bytes)
    return Conversion(
        folder=writer.folder,
        layout=layout,
        nbytes=writer.nbytes,
        values=counts.values,
        rounded=counts.rounded,
        copied=tuple(path.name for path in copied),
    )


@dataclass(slots=True)
class _Counts:
    """How many values were packed, and how many of those changed."""

    values: int = 0
    rounded: int = 0


def _converted(
    source: Checkpoint, layout: Layout, counts: _Counts
) -> Iterator[tuple[str, NDArray[Any], int]]:
    """(canonical name, next rows, bytes read for them) of everything the target needs."""
    source_packed, target_packed = source.layout != "hf-bf16", layout != "hf-bf16"
    for name in source.tensors:
        if source_packed == target_packed or "_weight" not in name:
            yield from _copied(source, name)
        elif target_packed:
            yield from _packed(source, name, counts)
        elif name.endswith(".blocks"):
            yield from _expanded(source, name.removesuffix(".blocks"))


def _copied(source: Checkpoint, name: str) -> Iterator[tuple[str, NDArray[Any], int]]:
    """The same values, a chunk of rows at a time."""
    tensor = source.read(name)
    step = max(1, _CHUNK_BYTES // (tensor.itemsize * math.prod(tensor.shape[1:])))
    for start in range(0, len(tensor), step):
        rows = tensor[start : start + step]
        if name.endswith(".scales"):
            mxfp4.check_scales(rows, where=name)
        yield name, rows, rows.nbytes


def _expanded(source: Checkpoint, name: str) -> Iterator[tuple[str, NDArray[Any], int]]:
    """MXFP4 -> bf16, one expert at a time."""
    blocks, scales = source.read(f"{name}.blocks"), source.read(f"{name}.scales")
    for expert in range(len(blocks)):
        mxfp4.check_scales(scales[expert], where=f"{name}.scales, expert {expert}")
        values = mxfp4.unpack(blocks[expert], scales[expert])  # (rows, in)
        nbytes = blocks[expert].nbytes + scales[expert].nbytes
        yield name, bfloat16.from_float32(values)[None], nbytes


def _packed(
    source: Checkpoint, name: str, counts: _Counts
) -> Iterator[tuple[str, NDArray[Any], int]]:
    """bf16 -> MXFP4, one expert at a time."""
    for expert, bits in enumerate(source.read(name)):
        values = bfloat16.to_float32(transposed(bits.swapaxes(0, 1)))  # (rows, in)
        try:
            blocks, scales = mxfp4.pack(values)
        except CheckpointError as error:
            raise CheckpointError(f"{name}, expert {expert}: {error}") from error
        counts.values += scales.size * MXFP4_BLOCK
        counts.rounded += int(np.count_nonzero(mxfp4.unpack(blocks, scales) != values))
        yield f"{name}.blocks", blocks[None], bits.nbytes
        yield f"{name}.scales", scales[None], 0


def _tokenizer_files(folder: Path) -> list[Path]:
    """Tokenizer files beside the weights, or beside the `original/` folder that holds them."""
    places = [folder, folder.parent] if folder.name == "original" else [folder]
    found = {p.name: p for f in reversed(places) for n in TOKENIZER_FILES if (p := f / n).is_file()}
    return [found[name] for name in TOKENIZER_FILES if name in found]
