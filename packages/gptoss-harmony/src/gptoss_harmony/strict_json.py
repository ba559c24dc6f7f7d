"""JSON from files that strangers made: small, an object, no key twice, no surprises."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from gptoss_harmony.errors import CheckpointError

MAX_JSON_BYTES = 16 << 20  # a header of gpt-oss-120b takes 60 kB


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        CheckpointError: the file cannot be read, is huge, or is not one JSON object.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB: not read")
    return parse_json_object(data, str(path))


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe or device, which may block or never end, is refused.

    Raises:
        CheckpointError: it is neither a file nor a folder.
        OSError: it cannot be opened.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise CheckpointError(f"{path} is a pipe, socket or device, not a file: not read")
    return path.open("rb")


def parse_json_object(data: bytes, what: str) -> dict[str, Any]:
    """Parse one JSON object; `what` names it in messages.

    Raises:
        CheckpointError: not UTF-8, not JSON, nested too deep, a key twice, or not an object.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_object_without_duplicates)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise CheckpointError(f"{what} is not valid JSON: {reason}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{what} must be a JSON object, not {type(value).__name__}")
    return value


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; the same key twice could mean two things, so it means none."""
    counts = Counter(key for key, _ in pairs)
    if len(counts) != len(pairs):
        raise ValueError(f"the key {counts.most_common(1)[0][0]!r} appears twice")
    return dict(pairs)
