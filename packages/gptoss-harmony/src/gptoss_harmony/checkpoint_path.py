"""From what a user types to the folder that holds the weights.

```
nano                   the small model that ships as a wheel, unpacked on first use
gpt-oss-20b            openai/gpt-oss-20b, where `gptoss download` put it
some-org/some-model    another model in the Hugging Face cache
path/to/folder         an `original/` or Hugging Face folder, or one that contains `original/`
```

Nothing is downloaded here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from gptoss_harmony.errors import CheckpointError

HUB_MODELS = ("gpt-oss-20b", "gpt-oss-120b")
INDEX_NAME = "model.safetensors.index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve_checkpoint(checkpoint: str | os.PathLike[str]) -> Path:
    """Return the folder with config.json and *.safetensors.

    Args:
        checkpoint: a folder, a hub id, or `nano` (a folder of that name is `./nano`).

    Raises:
        CheckpointError: nothing is there; the message says how to get it.
    """
    if checkpoint == "nano":
        from gptoss_harmony import nano

        return Path(nano.unpack())
    if not os.fspath(checkpoint):
        raise CheckpointError(
            "the name of the checkpoint is empty; give a folder, a hub id or nano"
        )
    path = Path(checkpoint).expanduser()
    try:
        if path.is_dir():
            return weights_folder(path)
        exists = path.exists()
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"{path} cannot be read: {reason}") from error
    if exists:
        raise CheckpointError(_not_a_folder(path))
    name = os.fspath(checkpoint)
    hub_id = f"openai/{name}" if name in HUB_MODELS else name
    if isinstance(name, str) and _HUB_ID.fullmatch(hub_id):
        return _from_hub_cache(hub_id)
    raise CheckpointError(
        f"{path}: no such folder; give a checkpoint folder, a hub id such as gpt-oss-20b, or nano"
    )


def weights_folder(path: Path) -> Path:
    """Return `path`, or its `original/` subfolder where only that has weights.

    Raises:
        CheckpointError: neither has any.
    """
    for folder in (path, path / "original"):
        if any(folder.glob("*.safetensors")):
            return folder
    if (path / INDEX_NAME).exists():
        return path  # where every shard is missing, which the index can name
    raise CheckpointError(_no_weights(path))


def hub_cache() -> Path:
    """Where Hugging Face tools keep downloads: HF_HUB_CACHE, HF_HOME/hub or ~/.cache's default."""
    environment = os.environ
    if cache := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(cache).expanduser()
    home = environment.get("HF_HOME")
    if not home:
        home = str(Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(home).expanduser() / "hub"


def _from_hub_cache(hub_id: str) -> Path:
    """The snapshot that `main` points to, or the only one."""
    folder = hub_cache() / f"models--{hub_id.replace('/', '--')}"
    snapshots = folder / "snapshots"
    try:
        revision = (folder / "refs" / "main").read_text("utf-8").strip()
        snapshot = snapshots / Path(revision).name
    except (OSError, UnicodeDecodeError):
        found = sorted(snapshots.glob("*")) if snapshots.is_dir() else []
        snapshot = found[0] if len(found) == 1 else snapshots
    model = hub_id.removeprefix("openai/")
    if model in HUB_MODELS:
        remedy = f"run `gptoss download {model}`"
    else:
        remedy = f"run `hf download {hub_id}`, or give a folder"
    if snapshot == snapshots or not snapshot.is_dir():
        raise CheckpointError(
            f"{hub_id} is not on this computer (no folder of that name, and nothing under "
            f"{hub_cache()}): {remedy}"
        )
    try:
        return weights_folder(snapshot)
    except CheckpointError as error:
        raise CheckpointError(f"{hub_id} is downloaded only in part: {remedy} ({error})") from error


def _not_a_folder(path: Path) -> str:
    """The sentence for a file given in place of a folder."""
    if path.name == "model.bin" or path.suffix == ".bin":
        return f"{path} is in the Metal format, which only the engine metal reads"
    if path.suffix in (".safetensors", ".json"):
        return f"{path} is a file: give its folder, {path.parent}"
    return f"{path} is a file, not a checkpoint folder"


def _no_weights(path: Path) -> str:
    """The sentence for a folder without safetensors files, by what is there instead."""
    if (path / "model.bin").exists() or (path / "metal" / "model.bin").exists():
        return (
            f"{path} has no *.safetensors, only a model.bin, which the engine metal reads: "
            "download the weights with `gptoss download`, or use that engine"
        )
    if any(path.glob("*.gguf")):
        return f"{path} holds GGUF files, which are not read here: use the engine ollama"
    if (path / "config.json").exists():
        return f"{path} has a config.json but no *.safetensors: the download was cut short"
    return (
        f"{path} has neither *.safetensors nor an original/ folder, so it is no checkpoint: give "
        "the folder with config.json and the weights, a hub id such as gpt-oss-20b, or nano"
    )
