"""Pack a trained `original/` folder: `python -m recipe.pack ORIGINAL ROWS.npy nano.safetensors`.

Nothing is lost: the folder's learned rows must already be int8 with a power-of-two scale and all
other rows the generated ones, as the trainer leaves them, else packing refuses. Unpacking gives
back every byte of every tensor, which is checked before the file gets its name.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_harmony import bfloat16, nano
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config_files import original_config_json
from gptoss_harmony.nano_rows import CODE_SIZE, expand_rows, quantise_rows
from gptoss_harmony.safetensors_header import build_header

LIMIT = 16_000_000  # bytes
INPUT_EXPONENT, OUTPUT_EXPONENT = 0, -3
_NAMES = {np.uint16: "BF16", np.uint8: "U8", np.int8: "I8", np.int32: "I32"}


def pack(
    folder: Path,
    rows: NDArray[np.integer],
    out: Path,
    *,
    code_size: int = CODE_SIZE,
    exponents: tuple[int, int] = (INPUT_EXPONENT, OUTPUT_EXPONENT),
) -> int:
    """Write the packed file; return its bytes.

    Args:
        folder: config.json and model.safetensors in the `original/` layout.
        rows: ids of the learned rows.
        out: the file to write.
        code_size: signs in the code of an unlearned token.
        exponents: of two, the scales of the codes in embedding and unembedding.

    Raises:
        ValueError: a row cannot be stored exactly, or the file exceeds 16 MB.
    """
    checkpoint = Checkpoint.open(folder)
    kept = np.sort(np.asarray(rows)).astype(np.int32)
    config = original_config_json(checkpoint.config)
    about = nano.describe(config, code_size=code_size, exponents=exponents)
    arrays: dict[str, NDArray[Any]] = {
        "nano.json": np.frombuffer(about, dtype=np.uint8),
        "rows": kept,
    }
    for table in nano.TABLES:
        values = bfloat16.to_float32(checkpoint.read(f"{table}.weight")[kept])
        quantised, scales = quantise_rows(values)
        wrong = (expand_rows(quantised, scales) != values).any(axis=1)
        if wrong.any():
            raise ValueError(f"{wrong.sum()} learned rows of {table} are not int8 times 2**e")
        arrays[f"{table}.rows"], arrays[f"{table}.exponents"] = quantised, scales
    for name in checkpoint.tensors:
        if name.removesuffix(".weight") not in nano.TABLES:
            arrays[name] = np.ascontiguousarray(checkpoint.read(name))
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        _write(partial, arrays)
        _check(partial, checkpoint)
        size = partial.stat().st_size
        if size > LIMIT:
            raise ValueError(f"{size:,} bytes exceed the limit of {LIMIT:,}")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return size


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    header, _ = build_header((n, _NAMES[a.dtype.type], a.shape) for n, a in arrays.items())
    with path.open("wb") as file:
        file.write(header)
        for array in arrays.values():
            file.write(array.tobytes())


def _check(path: Path, checkpoint: Checkpoint) -> None:
    """Refuse a file that does not unpack to the checkpoint's bytes."""
    position = dict.fromkeys(checkpoint.tensors, 0)
    for name, rows in nano.PackedNano.open(path).tensors():
        start = position[name]
        position[name] += len(rows)
        wanted = checkpoint.read(name)[start : position[name]]
        differs = (wanted != rows).reshape(len(rows), -1).any(axis=1)
        if differs.any():
            raise ValueError(
                f"{name}: {differs.sum()} rows differ after unpacking, the first is "
                f"{start + int(differs.argmax())}; rows outside the list must be the generated ones"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Pack and print the size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="trained `original/` folder")
    parser.add_argument("rows", type=Path, help="npy file with the ids of the learned rows")
    parser.add_argument("out", type=Path, help="packed file to write")
    options = parser.parse_args(argv)
    size = pack(options.folder, np.load(options.rows), options.out)
    sys.stderr.write(f"{options.out}: {size:,} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
