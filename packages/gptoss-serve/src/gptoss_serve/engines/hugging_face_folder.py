"""The folder that vLLM and Transformers load: Hugging Face's layout, with a tokenizer.

```
hugging_face_folder("nano", experts="mxfp4")       # converted into the user's cache, once
hugging_face_folder("gpt-oss-20b", experts="mxfp4")  # as it was downloaded
```
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from gptoss_harmony import Checkpoint
from gptoss_harmony.convert import convert_checkpoint
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.layout import Layout
from gptoss_harmony.nano import default_cache, is_complete
from gptoss_serve.engines.hugging_face_tokenizer import write_tokenizer

Experts = Literal["mxfp4", "bf16"]
_TOKENIZER = "tokenizer.json"


def hugging_face_folder(checkpoint: str, *, experts: Experts, cache: Path | None = None) -> Path:
    """Return a folder that both load; what has to be made is made in the user's cache, once.

    Args:
        checkpoint: whatever names a checkpoint: a folder, a hub id, `nano`.
        experts: how the experts are to lie there; bf16 for processors without MXFP4.
        cache: where to make it; None takes the user's cache.

    Raises:
        CheckpointError: there is no checkpoint, or the cache cannot be written.
    """
    source = Checkpoint.open(checkpoint)
    layout: Layout = "hf-bf16" if "hf-bf16" in (source.layout, f"hf-{experts}") else "hf-mxfp4"
    if source.layout == layout and (source.path / _TOKENIZER).is_file():
        return source.path
    made = (cache or default_cache()) / f"{layout}-{_fingerprint(source.path)}"
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
        if source.layout == layout:
            _link(source.path, made)
        elif not is_complete(made):
            _convert(source, made, layout)
        if not (made / _TOKENIZER).is_file():
            write_tokenizer(made)
    except OSError as error:
        raise CheckpointError(
            f"{made} cannot be written: {error.strerror or error}; set XDG_CACHE_HOME to a folder "
            f"with {source.nbytes >> 20} MB free"
        ) from error
    return made


def _convert(source: Checkpoint, made: Path, layout: Layout) -> None:
    try:
        convert_checkpoint(source, made, layout=layout)
    except CheckpointError:
        if not is_complete(made):  # else another process was faster
            raise


def _link(source: Path, made: Path) -> None:
    """A folder with the same files, to which a tokenizer may be added."""
    made.mkdir(exist_ok=True)
    for file in source.iterdir():
        target = made / file.name
        if file.is_file() and not target.is_symlink():
            try:
                target.symlink_to(file.resolve())
            except FileExistsError:  # another process was faster
                continue


def _fingerprint(folder: Path) -> str:
    """Twelve digits that change with the folder's place and its files."""
    facts = [str(folder.resolve())]
    for file in sorted(folder.glob("*")):
        if file.is_file():
            status = file.stat()
            facts.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
