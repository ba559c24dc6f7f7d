"""Where documents come from: conversations, a shard of tokens, or a folder of either.

```
parts = open_parts(Path("shards"), settings)     # one callable per shard; nothing is read yet
documents = parts[0]()
```

A generator may still be writing the folder: with `shards = N` the run takes N shards in the order
of their names and waits for each when it gets there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gptoss_core.train.conversations import load_conversations
from gptoss_core.train.documents import Documents, join, load_shards
from gptoss_core.train.settings import Settings
from gptoss_harmony.errors import UsageError

Part = Callable[[], Documents]
PATIENCE = 600.0  # seconds to wait for a shard that is being written


def open_parts(path: Path, settings: Settings) -> list[Part]:
    """The documents of a `.jsonl` file, an `.npz` shard, or a folder of either, in parts.

    Raises:
        UsageError: nothing of that kind is there.
    """
    if settings.shards:
        return [partial(_await_shard, path, number) for number in range(settings.shards)]
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    shards = [file for file in files if file.suffix == ".npz"]
    texts = [file for file in files if file.suffix in (".jsonl", ".json")]
    if shards:
        return [partial(load_shards, [shard]) for shard in shards]
    if texts:
        documents = load_conversations(texts, channels=settings.channels)
        return [lambda: documents]
    raise UsageError(f"{path}: expected .jsonl conversations or .npz shards of tokens")


def open_documents(path: Path, settings: Settings) -> Documents:
    """All documents at once."""
    return join([part() for part in open_parts(path, settings)])


def _await_shard(folder: Path, number: int) -> Documents:
    """Shard `number` of a folder, once it is there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        shards = sorted(folder.glob("*.npz")) if folder.is_dir() else []
        if number < len(shards):
            return load_shards([shards[number]])
        if time.monotonic() > deadline:
            raise UsageError(f"{folder}: {len(shards)} shards after {PATIENCE:.0f} s of waiting")
        time.sleep(0.1)
