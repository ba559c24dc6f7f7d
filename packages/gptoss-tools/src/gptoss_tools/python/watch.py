"""Looks at what a jail uses, for the bounds that the kernel cannot set for us.

Disk use of /mnt/data is always watched (a folder of the host has no quota); memory only where no
control group bounds it. A breach is seen within a twentieth of a second or so.
"""

from __future__ import annotations

import contextlib
import os
import time

from gptoss_tools.python.limits import Limits, MiB
from gptoss_tools.python.workspace import MOUNT, Workspace

_INTERVAL = 0.05  # seconds


class Watch:
    """Remembers the first breach of one jail.

    Args:
        process: the jail's outermost process on the host; None watches the disk only.
        workspace: the conversation's files.
        limits: the bounds.
    """

    def __init__(self, process: int | None, workspace: Workspace, limits: Limits) -> None:
        self._process = process
        self._workspace = workspace
        self._limits = limits
        self._breach: str | None = None
        self._next = 0.0

    def look(self, *, now: bool = False) -> str | None:
        """Which bound is or was overstepped; looks at most every 50 ms unless told to look now."""
        if self._breach is None and (now or time.monotonic() >= self._next):
            self._breach = self._disk() or self._memory()
            self._next = time.monotonic() + _INTERVAL
        return self._breach

    def _disk(self) -> str | None:
        size, entries = self._workspace.usage(max_entries=self._limits.files)
        if entries > self._limits.files:
            return (
                f"execution stopped: more than {self._limits.files:,} files in {MOUNT}, "
                f"or folders nested too deep"
            )
        if size > self._limits.disk_bytes:
            return f"execution stopped: more than {self._limits.disk_bytes // MiB} MiB in {MOUNT}"
        return None

    def _memory(self) -> str | None:
        if self._process is None:
            return None
        tree = descendants(self._process)
        if len(tree) > self._limits.processes + 2:  # two are the jail's own
            return f"execution stopped: more than {self._limits.processes} processes"
        if sum(map(resident_bytes, tree)) > self._limits.memory_bytes:
            return memory_words(self._limits)
        return None


def memory_words(limits: Limits) -> str:
    """How a breach of memory is told."""
    return f"execution stopped: more than {limits.memory_bytes // MiB} MiB of memory"


def descendants(process: int) -> list[int]:
    """A process and all below it."""
    tree: list[int] = []
    waiting = [process]
    while waiting and len(tree) < 100_000:
        current = waiting.pop()
        tree.append(current)
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{current}/task"):
                with open(f"/proc/{current}/task/{thread}/children") as file:
                    waiting += map(int, file.read().split())
    return tree


def resident_bytes(process: int) -> int:
    """Memory of a process that is not shared with others through files."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{process}/status") as f:
        lines = dict(line.split(":", 1) for line in f if line.startswith(("RssAnon", "RssShmem")))
        return sum(int(value.split()[0]) * 1024 for value in lines.values())
    return 0
