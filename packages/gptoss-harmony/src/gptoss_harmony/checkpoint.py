"""A checkpoint on disk: what it is and where each tensor lies, found by reading headers only.

```
checkpoint = Checkpoint.open("nano")               # or a folder, or gpt-oss-20b
checkpoint.config.num_hidden_layers
tensor = checkpoint.tensors["block.0.attn.qkv.weight"]
tensor.shape, tensor.dtype, tensor.parts           # bytes start..stop of which file
checkpoint.read("block.0.attn.qkv.weight")         # bf16 as uint16 bits, memory-mapped
```

Names are those of the `original/` folder in every layout; Hugging Face's separate q, k and v are
three parts of one tensor, and its expanded experts one part that is marked as transposed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_harmony.checkpoint_path import INDEX_NAME, resolve_checkpoint
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.config_files import is_hugging_face, parse_config
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.layout import Layout, Stored, TensorSpec, tensor_specs
from gptoss_harmony.safetensors_header import Entry, read_header
from gptoss_harmony.strict_json import read_json_object

_NUMPY_TYPES: Mapping[str, type[np.generic]] = {"BF16": np.uint16, "U8": np.uint8}
_LISTED = 20  # names of a kind of problem that one message spells out


@dataclass(frozen=True, slots=True)
class Part:
    """A run of bytes that holds (some rows of) a tensor.

    Attributes:
        path: the file.
        start: first byte in it.
        stop: one past the last byte.
        shape: as the bytes are ordered.
        dtype: "BF16" or "U8".
        transposed: the canonical tensor has the last two axes swapped.
    """

    path: Path
    start: int
    stop: int
    shape: tuple[int, ...]
    dtype: str
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Tensor:
    """One canonical tensor; its parts follow one another along axis 0."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[Part, ...]

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(part.stop - part.start for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint; holds no file open and no weight in memory.

    Attributes:
        path: the folder that has the weights.
        layout: "original", "hf-mxfp4" or "hf-bf16".
        config: the sizes.
        tensors: by canonical name, embedding first, unembedding last.
        notes: remarks on things that were ignored.
    """

    path: Path
    layout: Layout
    config: ModelConfig
    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, checkpoint: str | os.PathLike[str]) -> Self:
        """Find and check a checkpoint without reading a tensor.

        Args:
            checkpoint: `nano`, a hub id that was downloaded, or a folder in any layout.

        Raises:
            CheckpointError: it is not there, not complete or not a gpt-oss; one message lists
                every missing, unexpected and mis-shaped tensor.
        """
        folder = resolve_checkpoint(checkpoint)
        config, dialect_is_hf = _read_config(folder)
        entries, notes = _read_entries(folder)
        entries, renamed = _rename_expanded(entries)
        layout = _detect_layout(folder, entries, dialect_is_hf)
        tensors = _match(folder, tensor_specs(config, layout), entries)
        return cls(
            path=folder, layout=layout, config=config, tensors=tensors, notes=notes + renamed
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the tensors, sorted."""
        return tuple(sorted({p.path for t in self.tensors.values() for p in t.parts}))

    def read(self, name: str) -> NDArray[Any]:
        """Return a tensor in its canonical shape.

        A tensor in one part is a read-only memory map (so `read(name)[expert]` touches only that
        expert), transposed ones included; only q, k and v are copied together.

        Args:
            name: canonical name.

        Returns:
            uint8 for U8; for BF16 the bits as uint16 (see `gptoss_harmony.bfloat16`).

        Raises:
            CheckpointError: no such tensor, or the file has changed or gone since `open`.
        """
        if name not in self.tensors:
            raise CheckpointError(f"{self.path} has no tensor {name!r}")
        arrays = [_map(part) for part in self.tensors[name].parts]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _map(part: Part) -> NDArray[Any]:
    """Map one part, in its canonical axis order."""
    try:
        mapped = np.memmap(part.path, _NUMPY_TYPES[part.dtype], "r", part.start, part.shape)
    except (OSError, ValueError) as error:  # ValueError: the file is shorter than it was
        raise CheckpointError(f"{part.path} changed since it was opened: {error}") from error
    array = np.asarray(mapped)
    return array.swapaxes(-1, -2) if part.transposed else array


def _read_config(folder: Path) -> tuple[ModelConfig, bool]:
    """The sizes, and whether the config is in Hugging Face's dialect."""
    path = folder / "config.json"
    if not path.exists():
        raise CheckpointError(
            f"{folder} has weights but no config.json: copy it from where the weights came from"
        )
    content = read_json_object(path)
    return parse_config(content, str(path)), is_hugging_face(content)


def _read_entries(folder: Path) -> tuple[dict[str, tuple[Path, Entry]], tuple[str, ...]]:
    """All tensors of all shards, by stored name, checked against the index where there is one."""
    index = _read_index(folder)
    present = {path.name for path in folder.glob("*.safetensors")}
    wanted = set(index.values()) if index is not None else present
    if absent := sorted(wanted - present):
        raise CheckpointError(
            f"{folder}: {len(absent)} of {len(wanted)} shards are missing: {_list(absent)}; "
            "download them again (`gptoss download` continues where it stopped)"
        )
    entries: dict[str, tuple[Path, Entry]] = {}
    problems: list[str] = []
    for name in sorted(wanted):
        try:
            header = read_header(folder / name)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for entry in header.values():
            if entry.name in entries:
                problems.append(f"{entry.name} is both in {entries[entry.name][0].name} and {name}")
            entries[entry.name] = (folder / name, entry)
    if not problems and index is not None:
        problems = _compare_index(index, entries)
    if problems:
        raise CheckpointError("; ".join(problems[:_LISTED]))
    ignored = sorted(present - wanted)
    return entries, tuple(f"{name} is not in {INDEX_NAME}: ignored" for name in ignored)


def _read_index(folder: Path) -> dict[str, str] | None:
    """Tensor name -> file name, or None where the folder has no index."""
    path = folder / INDEX_NAME
    if not path.exists():
        return None
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no weight_map: download it again")
    for name, file in weight_map.items():
        # A plain name only: an index must not send the reader to a file elsewhere.
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or "\0" in file:
            raise CheckpointError(f"{path}: {name!r} is not in a file of this folder: {file!r}")
    return weight_map


def _compare_index(index: dict[str, str], entries: dict[str, tuple[Path, Entry]]) -> list[str]:
    """Every tensor that the index and the headers see differently."""
    problems = []
    for name in sorted(index.keys() | entries.keys()):
        claimed = index.get(name, "no file")
        actual = entries[name][0].name if name in entries else "no file"
        if claimed != actual:
            problems.append(f"{INDEX_NAME} has {name} in {claimed}, the headers in {actual}")
    return problems


def _rename_expanded(
    entries: dict[str, tuple[Path, Entry]],
) -> tuple[dict[str, tuple[Path, Entry]], tuple[str, ...]]:
    """Give bf16 experts their own names where they stand under those of packed blocks.

    Transformers 5 saves a model that it expanded from MXFP4 in this way.
    """
    renamed = {
        name.removesuffix("_blocks") if _is_expanded_block(name, entry) else name: (path, entry)
        for name, (path, entry) in entries.items()
    }
    if renamed.keys() == entries.keys() or len(renamed) < len(entries):
        return entries, ()
    return renamed, ("bf16 experts are named *_blocks, as Transformers 5 saves them: read as such",)


def _is_expanded_block(name: str, entry: Entry) -> bool:
    """Whether a tensor named like packed blocks holds expanded weights."""
    return name.endswith("_proj_blocks") and entry.dtype == "BF16" and len(entry.shape) == 3


def _detect_layout(
    folder: Path, entries: Mapping[str, tuple[Path, Entry]], config_is_hf: bool
) -> Layout:
    """Tell the layout from the names, and hold the config to it."""
    tensors_are_hf = any(name.startswith("model.") for name in entries)
    if tensors_are_hf != config_is_hf:
        kinds = {True: "Hugging Face", False: "original/"}
        raise CheckpointError(
            f"{folder}: config.json is in the {kinds[config_is_hf]} form, the weights are not: "
            f"put the {kinds[tensors_are_hf]} config.json beside these weights"
        )
    if not tensors_are_hf:
        return "original"
    packed = any(name.endswith("_proj_blocks") for name in entries)
    return "hf-mxfp4" if packed else "hf-bf16"


def _match(
    folder: Path, specs: tuple[TensorSpec, ...], entries: Mapping[str, tuple[Path, Entry]]
) -> Mapping[str, Tensor]:
    """Pair what should be with what is, or raise every difference at once."""
    missing: list[str] = []
    wrong: list[str] = []
    tensors: dict[str, Tensor] = {}
    for spec in specs:
        parts = []
        for stored in spec.stored:
            if stored.name not in entries:
                missing.append(stored.name)
                continue
            path, entry = entries[stored.name]
            if (entry.shape, entry.dtype) != (stored.shape, stored.dtype):
                wrong.append(
                    f"{stored.name} is {entry.dtype} {list(entry.shape)} and should be "
                    f"{stored.dtype} {list(stored.shape)}"
                )
            parts.append(_part(path, entry, stored))
        tensors[spec.name] = Tensor(spec.name, spec.shape, spec.dtype, tuple(parts))
    unexpected = sorted(entries.keys() - {s.name for spec in specs for s in spec.stored})
    problems = [
        f"{len(names)} {kind}: {_list(names)}"
        for kind, names in (
            ("tensors are missing", missing),
            ("are unexpected", unexpected),
            ("have the wrong shape or type", wrong),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{folder} does not hold the model that its config.json describes: "
            + "; ".join(problems)
            + ". Use the config.json and all files of one download"
        )
    return MappingProxyType(tensors)


def _part(path: Path, entry: Entry, stored: Stored) -> Part:
    """Where a stored tensor lies."""
    return Part(path, entry.start, entry.stop, entry.shape, entry.dtype, stored.transposed)


def _list(names: list[str]) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
