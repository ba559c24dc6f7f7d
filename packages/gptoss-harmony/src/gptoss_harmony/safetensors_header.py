"""The header of a safetensors file: which tensor lies where, read without touching a tensor.

```
8 bytes   little-endian length N of the header
N bytes   JSON: {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...}
the rest  the tensors' bytes; offsets count from here
```

A header is a stranger's claim, so it is checked before it is believed: every range has the size
its shape and type ask for, the ranges fill the data without gap or overlap, and the file ends where
the last one does.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.strict_json import MAX_JSON_BYTES, open_regular, parse_json_object

LENGTH_BYTES = 8
ITEM_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file.

    Attributes:
        name: as stored.
        dtype: safetensors' word, such as "BF16" or "U8".
        shape: sizes of the axes, outermost first.
        start: first byte, counted from the beginning of the file.
        stop: one past the last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def tensor_bytes(dtype: str, shape: Iterable[int]) -> int:
    """Bytes that a tensor of a known type and shape takes."""
    return math.prod(shape) * ITEM_BYTES[dtype]


def read_header(path: Path) -> dict[str, Entry]:
    """Read and check the header of one file.

    Returns:
        Entries by name, in the order of their bytes.

    Raises:
        CheckpointError: the file is missing, cut short, or its header does not hold together.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(LENGTH_BYTES)
            _check_prefix(path, prefix, size)
            length = int.from_bytes(prefix, "little")
            header = parse_json_object(file.read(length), f"{path}: the header")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    header.pop("__metadata__", None)
    data_start = LENGTH_BYTES + length
    entries = [_entry(path, name, value, data_start) for name, value in header.items()]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    _check_cover(path, entries, data_start, size)
    return {entry.name: entry for entry in entries}


def build_header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[bytes, list[Entry]]:
    """Lay out tensors one after another.

    Args:
        tensors: (name, dtype, shape) in the order of their bytes.

    Returns:
        The bytes before the data (length and JSON, padded with spaces to a multiple of 8), and one
        entry per tensor with offsets from the beginning of the file.
    """
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # Transformers insists on this key
    entries: list[Entry] = []
    position = 0
    for name, dtype, shape in tensors:
        stop = position + tensor_bytes(dtype, shape)
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, stop]}
        entries.append(Entry(name, dtype, shape, position, stop))
        position = stop
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    base = LENGTH_BYTES + len(text)
    shifted = [Entry(e.name, e.dtype, e.shape, e.start + base, e.stop + base) for e in entries]
    return len(text).to_bytes(LENGTH_BYTES, "little") + text, shifted


def _check_prefix(path: Path, prefix: bytes, size: int) -> None:
    """Refuse a file whose first 8 bytes cannot be the length of its header."""
    if prefix == b"version ":
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder"
        )
    length = int.from_bytes(prefix, "little")
    if len(prefix) < LENGTH_BYTES or length + LENGTH_BYTES > size:
        if len(prefix) == LENGTH_BYTES and length > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} is not a safetensors file")
        raise CheckpointError(
            f"{path} is cut short ({size} bytes, not even its header): download it again"
        )
    if length > MAX_JSON_BYTES:
        raise CheckpointError(
            f"{path}: a header of {length} bytes is refused; the limit is {MAX_JSON_BYTES}"
        )


def _entry(path: Path, name: str, value: Any, data_start: int) -> Entry:
    """Check one line of the header on its own."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: {name!r} must have dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise CheckpointError(f"{path}: {name!r} has the unknown type {str(dtype)[:40]!r}")
    if not _naturals(shape) or len(shape) > 8:
        raise CheckpointError(f"{path}: {name!r} has a shape that is not a list of sizes")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{path}: {name!r} has offsets that are not [start, stop]")
    expected = tensor_bytes(dtype, shape)
    if offsets[1] - offsets[0] != expected:
        raise CheckpointError(
            f"{path}: the header lies about {name!r}: {dtype} {shape} takes {expected} bytes, "
            f"its offsets span {offsets[1] - offsets[0]}"
        )
    return Entry(name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _naturals(value: Any) -> bool:
    """Whether `value` is a list of integers that are not negative."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_cover(path: Path, entries: list[Entry], data_start: int, size: int) -> None:
    """Refuse gaps, overlaps and a file that ends anywhere but after the last tensor."""
    position = data_start
    for entry in entries:
        if entry.start != position:
            problem = "overlaps the tensor before it" if entry.start < position else "leaves a gap"
            raise CheckpointError(
                f"{path}: the header lies about offsets: {entry.name!r} {problem}"
            )
        position = entry.stop
    if size < position:
        raise CheckpointError(
            f"{path} is cut short: {size} bytes of {position}; download or copy it again "
            "(`gptoss download` continues where it stopped)"
        )
    if size > position:
        raise CheckpointError(
            f"{path} has {size - position} bytes that its header does not know: download it again"
        )
