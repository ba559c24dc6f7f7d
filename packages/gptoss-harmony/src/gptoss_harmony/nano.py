"""nano, the small model that ships as data: from the packed file to an ordinary checkpoint.

```
folder = unpack()                 # ~/.cache/gptoss/nano-1a2b3c4d5e6f on Linux, made on first use
Checkpoint.open(folder).layout    # "original"
```

The packed file is a safetensors file with every tensor of an `original/` checkpoint but the two
vocabulary tables. Of those it has the learned rows only, as int8 with a power-of-two scale a row;
all other rows follow from the text of their token (`nano_rows`):

```
nano.json               U8   JSON: format, config, code_size, input_exponent, output_exponent
rows                    I32  (K,)  ids of the learned rows, ascending
embedding.rows          I8   (K, H);   embedding.exponents    I8  (K,)
unembedding.rows        I8   (K, H);   unembedding.exponents  I8  (K,)
norm.scale, block.*     as in `original/`
```

The folder is named after the file's SHA-256, so a new nano never meets the old one's weights; it
appears under its name only when it is complete, so processes that unpack at once do no harm.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gptoss_harmony import bfloat16
from gptoss_harmony.checkpoint_writer import CheckpointWriter
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.config_files import parse_original_config
from gptoss_harmony.errors import CheckpointError, NotInstalled
from gptoss_harmony.nano_rows import expand_rows, token_codes
from gptoss_harmony.safetensors_header import Entry, read_header
from gptoss_harmony.strict_json import parse_json_object

FORMAT: Final = "gptoss-nano-1"
TABLES: Final = ("embedding", "unembedding")
_NUMPY_TYPES: Final = {"BF16": np.uint16, "U8": np.uint8, "I8": np.int8, "I32": np.int32}
_CHUNK_ROWS: Final = 16_384


def unpack(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return nano as an `original/` folder, writing it on first use (206 MB of tables).

    Args:
        cache_dir: where to keep it; None means `gptoss` in the user's cache: `$XDG_CACHE_HOME` if
            set, else `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows, `~/.cache`.

    Raises:
        NotInstalled: the package gptoss-nano is not there.
        CheckpointError: the cache cannot be written, or the packed file is damaged.
    """
    packed = packed_path()
    folder = default_cache() if cache_dir is None else Path(cache_dir).expanduser()
    target = folder / f"nano-{_fingerprint(packed)}"
    if not is_complete(target):
        unpack_file(packed, target)
    return target


def packed_path() -> Path:
    """Return the packed file inside the installed package gptoss-nano.

    Raises:
        NotInstalled: the package, or the file in it, is not there.
    """
    spec = importlib.util.find_spec("gptoss_nano")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "nano.safetensors"
        if path.is_file():
            return path
    raise NotInstalled("nano is not installed; get it with: pip install gptoss-nano")


def default_cache() -> Path:
    """Return the folder for files that can be made again; reads the environment."""
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root).expanduser() / "gptoss"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/gptoss").expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")).expanduser() / "gptoss"
    return Path("~/.cache/gptoss").expanduser()


def is_complete(folder: Path) -> bool:
    """Whether an unpacked nano stands there; folders appear only when all is in them."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def unpack_file(packed: Path, target: Path) -> None:
    """Write a packed file as an `original/` folder.

    Raises:
        CheckpointError: `target` cannot be written, or `packed` is damaged.
    """
    nano = PackedNano.open(packed)
    try:
        with CheckpointWriter(target, nano.config) as writer:
            for name, array in nano.tensors():
                writer.append(name, array)
    except CheckpointError as error:
        if is_complete(target):  # another process was faster
            return
        raise CheckpointError(
            f"nano cannot be unpacked into {target.parent}: {error}; set XDG_CACHE_HOME to a "
            "folder that can be written and has 250 MB free"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedNano:
    """A packed file, its header read and checked.

    Attributes:
        path: the file.
        config: sizes of the model.
        code_size: signs in the code of an unlearned token.
        exponents: of two, the scales of the codes in the embedding and the unembedding.
        entries: where each tensor lies.
    """

    path: Path
    config: ModelConfig
    code_size: int
    exponents: tuple[int, int]
    entries: dict[str, Entry]

    @classmethod
    def open(cls, path: Path) -> PackedNano:
        """Read the header and the description.

        Raises:
            CheckpointError: the file is damaged or of another format.
        """
        entries = read_header(path)
        if "nano.json" not in entries:
            raise CheckpointError(f"{path} is not a packed nano: reinstall gptoss-nano")
        about = parse_json_object(_read(path, entries["nano.json"]).tobytes(), f"{path}: nano.json")
        if about.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} has the format {about.get('format')!r} and this gptoss-harmony reads "
                f"{FORMAT!r}: upgrade both with: pip install --upgrade gptoss-harmony gptoss-nano"
            )
        return cls(
            path=path,
            config=parse_original_config(about["config"], f"{path}: config"),
            code_size=about["code_size"],
            exponents=(about["input_exponent"], about["output_exponent"]),
            entries=entries,
        )

    def read(self, name: str) -> NDArray[Any]:
        """Return one stored tensor; bf16 as its bits in uint16."""
        return _read(self.path, self.entries[name])

    def tensors(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield (name, rows) of the `original/` checkpoint; the tables come in several parts."""
        special = {"nano.json", "rows"} | {
            f"{table}.{part}" for table in TABLES for part in ("rows", "exponents")
        }
        for name in self.entries:
            if name not in special:
                yield name, self.read(name)
        kept = self.read("rows")
        for table in TABLES:
            learned = expand_rows(self.read(f"{table}.rows"), self.read(f"{table}.exponents"))
            for start in range(0, self.config.vocab_size, _CHUNK_ROWS):
                ids = np.arange(start, min(start + _CHUNK_ROWS, self.config.vocab_size))
                rows = self.unlearned_rows(table, ids)
                first, last = np.searchsorted(kept, [ids[0], ids[-1] + 1])
                rows[kept[first:last] - start] = learned[first:last]
                yield f"{table}.weight", bfloat16.from_float32(rows)

    def unlearned_rows(self, table: str, ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the rows that tokens have as long as nothing is learned about them.

        The embedding has the code in its first dimensions, the unembedding in the next ones, so
        that what was read and what is to be written can stand side by side.
        """
        place = TABLES.index(table)
        size = self.code_size
        rows = np.zeros((len(ids), self.config.hidden_size), dtype=np.float32)
        codes = token_codes(ids, size=size)
        rows[:, place * size : (place + 1) * size] = np.ldexp(
            codes.astype(np.float32), self.exponents[place]
        )
        return rows


def describe(config: dict[str, Any], *, code_size: int, exponents: tuple[int, int]) -> bytes:
    """Return the content of `nano.json`, as the packer writes it."""
    about = {
        "format": FORMAT,
        "config": config,
        "code_size": code_size,
        "input_exponent": exponents[0],
        "output_exponent": exponents[1],
    }
    return json.dumps(about, indent=1).encode()


def _read(path: Path, entry: Entry) -> NDArray[Any]:
    """Read the bytes of one tensor."""
    dtype = np.dtype(_NUMPY_TYPES[entry.dtype])
    count = (entry.stop - entry.start) // dtype.itemsize
    return np.fromfile(path, dtype, count, offset=entry.start).reshape(entry.shape)


def _fingerprint(path: Path) -> str:
    """Twelve digits of the file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
