"""Write a checkpoint of any size with little memory, whole or not at all.

Shapes follow from the config, so the header is written first and each tensor's rows go straight to
their place, in whatever order the tensors come:

```
with CheckpointWriter(folder, config, layout="original") as writer:
    writer.append("norm.scale", gain)              # float32 is rounded to bf16
    for expert in blocks:
        writer.append("block.0.mlp.mlp1_weight.blocks", expert[None])  # rows follow rows
    ...
```

The files grow in a hidden folder beside the target, which takes the target's name when everything
is there and is removed when anything fails. Several threads may write, each its own tensors.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_harmony import bfloat16
from gptoss_harmony.checkpoint_path import INDEX_NAME
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.config_files import (
    generation_config_json,
    has_harmony_tokens,
    hugging_face_config_json,
    original_config_json,
)
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.layout import Layout, Stored, TensorSpec, tensor_specs
from gptoss_harmony.safetensors_header import Entry, build_header, tensor_bytes
from gptoss_harmony.transpose import transposed


def write_checkpoint(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    tensors: Iterable[tuple[str, NDArray[Any]]],
    *,
    layout: Layout = "original",
    max_shard_bytes: int | None = None,
) -> Path:
    """Write all tensors of a model; see `CheckpointWriter` for the arguments.

    Args:
        folder: must not exist, or be empty.
        config: the sizes.
        tensors: (canonical name, array) in any order; a name may come again with its next rows.
        layout: which of the three layouts to write.
        max_shard_bytes: start a new file before one exceeds this; None writes one file.

    Returns:
        The folder.

    Raises:
        CheckpointError: as `CheckpointWriter` does.
    """
    with CheckpointWriter(folder, config, layout=layout, max_shard_bytes=max_shard_bytes) as writer:
        for name, array in tensors:
            writer.append(name, array)
    return writer.folder


class CheckpointWriter:
    """A checkpoint under construction; a context manager.

    Args:
        folder: must not exist, or be empty: nothing is ever overwritten.
        config: the sizes.
        layout: which of the three layouts to write.
        max_shard_bytes: start a new file before one exceeds this; None writes one file.

    Raises:
        CheckpointError: the folder is taken or not writable, the disk too small, an array has the
            wrong name, shape or type, or rows are missing at the end.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: ModelConfig,
        *,
        layout: Layout = "original",
        max_shard_bytes: int | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.layout = layout
        self.nbytes = 0
        self._config = config
        self._specs = {spec.name: spec for spec in tensor_specs(config, layout)}
        self._rows_written = dict.fromkeys(self._specs, 0)
        self._shards = _plan_shards(self._specs.values(), max_shard_bytes)
        self._places: dict[str, tuple[Path, Entry]] = {}
        self._partial = self.folder.with_name(
            f".{self.folder.name}.partial-{os.getpid()}-{secrets.token_hex(4)}"
        )

    def __enter__(self) -> Self:
        self._check_target()
        try:
            self._partial.mkdir(parents=True)
            for name, tensors in self._shards.items():
                self._start_shard(name, tensors)
            self._write_json_files()
        except OSError as error:
            self._discard()
            raise _write_failed(self.folder, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._finish()
        except OSError as failure:
            raise _write_failed(self.folder, failure) from failure
        finally:
            self._discard()

    def append(self, name: str, rows: NDArray[Any]) -> None:
        """Write the next rows (axis 0) of a tensor.

        Args:
            name: canonical name.
            rows: (n, ...) with the canonical shape after the first axis: uint8 for U8; for BF16
                the bits as uint16, or floats, which are rounded.

        Raises:
            CheckpointError: unknown name, wrong shape or type, too many rows, or a failed write.
        """
        spec = self._specs.get(name)
        if spec is None:
            raise CheckpointError(f"{self.layout} checkpoints have no tensor {name!r}")
        first = self._rows_written[name]
        last = first + len(rows)
        if rows.shape[1:] != spec.shape[1:] or last > spec.shape[0]:
            raise CheckpointError(
                f"{name} has the shape {list(spec.shape)} and {first} rows of it are written; "
                f"rows of shape {list(rows.shape)} do not fit"
            )
        data = _to_stored_type(spec, rows)
        try:
            for stored, start, stop, offset in _overlaps(spec, first, last):
                self._write_rows(stored, data[start - first : stop - first], offset)
        except OSError as error:
            raise _write_failed(self.folder, error) from error
        self._rows_written[name] = last

    def add_file(self, path: Path) -> None:
        """Copy a small file, such as a tokenizer, beside the weights under its own name.

        Raises:
            CheckpointError: it cannot be read or written.
        """
        try:
            shutil.copyfile(path, self._partial / path.name)
        except OSError as error:
            raise _write_failed(self.folder, error) from error

    def _check_target(self) -> None:
        """Refuse a taken folder and a disk that is too small, before anything is written."""
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise CheckpointError(
                f"{self.folder} exists and is not empty: nothing is overwritten; choose another "
                "folder or remove it"
            )
        parent = next(path for path in self.folder.parents if path.exists())
        needed = sum(
            tensor_bytes(stored.dtype, stored.shape)
            for tensors in self._shards.values()
            for stored in tensors
        )
        free = shutil.disk_usage(parent).free
        if needed > free:
            raise CheckpointError(
                f"{self.folder}: the checkpoint takes {needed / 1e9:.1f} GB and the disk has "
                f"{free / 1e9:.1f} GB free: make room or choose another folder"
            )
        self.nbytes = needed

    def _start_shard(self, name: str, tensors: list[Stored]) -> None:
        """Create one file at its full length, with its header."""
        header, entries = build_header((t.name, t.dtype, t.shape) for t in tensors)
        path = self._partial / name
        with path.open("wb") as file:
            file.write(header)
            file.truncate(entries[-1].stop)
        self._places.update({entry.name: (path, entry) for entry in entries})

    def _write_rows(self, stored: Stored, rows: NDArray[Any], offset: int) -> None:
        """Put rows of a stored tensor at their place; `offset` counts rows."""
        path, entry = self._places[stored.name]
        rows = transposed(rows) if stored.transposed else np.ascontiguousarray(rows)
        row_bytes = (entry.stop - entry.start) // stored.shape[0]
        with path.open("r+b") as file:  # a handle of its own, so that threads do not meet
            file.seek(entry.start + offset * row_bytes)
            file.write(rows.reshape(-1).view(np.uint8).data)

    def _write_json_files(self) -> None:
        """config.json, and for Hugging Face the generation defaults and, if sharded, the index."""
        hugging_face = self.layout != "original"
        if hugging_face:
            config = hugging_face_config_json(self._config, packed=self.layout == "hf-mxfp4")
            if has_harmony_tokens(self._config):
                self._write_json("generation_config.json", generation_config_json())
        else:
            config = original_config_json(self._config)
        self._write_json("config.json", config)
        if len(self._shards) > 1:
            weight_map = {t.name: file for file, tensors in self._shards.items() for t in tensors}
            index = {"metadata": {"total_size": self.nbytes}, "weight_map": weight_map}
            self._write_json(INDEX_NAME, index)

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        """One small file, indented for people."""
        (self._partial / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")

    def _finish(self) -> None:
        """Check that every row came, flush to disk and take the final name."""
        unfinished = [
            f"{name} ({count} of {self._specs[name].shape[0]} rows)"
            for name, count in self._rows_written.items()
            if count < self._specs[name].shape[0]
        ]
        if unfinished:
            raise CheckpointError(
                f"{self.folder} was not written: {len(unfinished)} tensors are incomplete: "
                + ", ".join(unfinished[:20])
            )
        for name in self._shards:
            with (self._partial / name).open("r+b") as file:
                os.fsync(file.fileno())
        if self.folder.exists():
            self.folder.rmdir()  # empty, as checked; rename cannot replace it everywhere
        self._partial.rename(self.folder)

    def _discard(self) -> None:
        """Remove the hidden folder, if it is still there."""
        shutil.rmtree(self._partial, ignore_errors=True)


def _plan_shards(
    specs: Iterable[TensorSpec], max_shard_bytes: int | None
) -> dict[str, list[Stored]]:
    """File name -> stored tensors, filled in order; a tensor is never split."""
    shards: list[list[Stored]] = [[]]
    filled = 0
    for stored in (stored for spec in specs for stored in spec.stored):
        size = tensor_bytes(stored.dtype, stored.shape)
        if max_shard_bytes is not None and shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(stored)
        filled += size
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    count = len(shards)
    return {f"model-{i:05d}-of-{count:05d}.safetensors": s for i, s in enumerate(shards, start=1)}


def _overlaps(spec: TensorSpec, first: int, last: int) -> Iterable[tuple[Stored, int, int, int]]:
    """Stored tensors that rows first..last touch: (stored, start, stop, row offset inside it)."""
    begin = 0
    for stored in spec.stored:
        end = begin + stored.shape[0]
        start, stop = max(first, begin), min(last, end)
        if start < stop:
            yield stored, start, stop, start - begin
        begin = end


def _to_stored_type(spec: TensorSpec, rows: NDArray[Any]) -> NDArray[Any]:
    """uint8 stays; floats become bf16 bits; anything else is refused."""
    if spec.dtype == "U8" and rows.dtype == np.uint8:
        return rows
    if spec.dtype == "BF16" and rows.dtype == np.uint16:
        return rows
    if spec.dtype == "BF16" and rows.dtype.kind == "f":
        return bfloat16.from_float32(rows)
    wanted = "uint8" if spec.dtype == "U8" else "uint16 bits or floats"
    raise CheckpointError(f"{spec.name} is written from {wanted}, not from {rows.dtype}")


def _write_failed(folder: Path, error: OSError) -> CheckpointError:
    """The sentence for a write that the system refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CheckpointError(f"{folder}: the disk is full; nothing was left behind")
    reason = error.strerror or str(error)
    return CheckpointError(f"{folder} cannot be written: {reason}; choose a folder you may write")
