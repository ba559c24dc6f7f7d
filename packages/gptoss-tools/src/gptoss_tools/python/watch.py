"""Looks at what a jail uses, for the bounds that the kernel cannot set for us.

Disk use of /mnt/data is always watched (a folder of the host has no quota), also by files that
have no name any more but are still open or mapped; memory only where no control group bounds it.
A breach is seen within a twentieth of a second or so.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from gptoss_tools.python.limits import Limits, MiB
from gptoss_tools.python.workspace import MOUNT, Workspace

_INTERVAL = 0.05  # seconds


class Watch:
    """Remembers the first breach of one jail.

    Args:
        process: the jail's outermost process on the host; None watches named files only.
        workspace: the conversation's files.
        limits: the bounds.
        memory: whether to watch memory and processes too.
    """

    def __init__(
        self, process: int | None, workspace: Workspace, limits: Limits, *, memory: bool = True
    ) -> None:
        self._process = process
        self._memory_too = memory
        self._workspace = workspace
        self._limits = limits
        self._breach: str | None = None
        self._next = 0.0

    def look(self, *, now: bool = False) -> str | None:
        """Which bound is or was overstepped; looks at most every 50 ms unless told to look now."""
        if self._breach is None and (now or time.monotonic() >= self._next):
            tree = [] if self._process is None else descendants(self._process)
            self._breach = self._disk(tree) or self._memory(tree)
            self._next = time.monotonic() + _INTERVAL
        return self._breach

    def _disk(self, tree: list[int]) -> str | None:
        size, entries = self._workspace.usage(max_entries=self._limits.files)
        if entries > self._limits.files:
            return (
                f"execution stopped: more than {self._limits.files:,} files in {MOUNT}, "
                "or folders nested too deep or closed"
            )
        if size + nameless_bytes(tree, self._workspace.data) > self._limits.disk_bytes:
            return f"execution stopped: more than {self._limits.disk_bytes // MiB} MiB in {MOUNT}"
        return None

    def _memory(self, tree: list[int]) -> str | None:
        if not self._memory_too:
            return None
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


def nameless_bytes(tree: list[int], folder: Path) -> int:
    """Disk use of files that have no name any more but are held by a process.

    Args:
        tree: processes; those of others, or gone by now, hold nothing.
        folder: only files on its file system count.
    """
    device = folder.stat().st_dev
    sizes: dict[int, int] = {}  # by inode
    for process in tree:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    found = os.stat(f"/proc/{process}/fd/{name}")
                    if found.st_nlink == 0 and found.st_dev == device:
                        sizes[found.st_ino] = found.st_blocks * 512
        with contextlib.suppress(OSError), open(f"/proc/{process}/maps", "rb") as file:
            for inode, size in _nameless_maps(file.read(), device):
                sizes.setdefault(inode, size)
    return sum(sizes.values())


def _nameless_maps(maps: bytes, device: int) -> Iterator[tuple[int, int]]:
    """Inode and mapped size of the files without a name in a list of mappings (proc(5))."""
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}".encode()
    sizes: dict[int, int] = {}
    for line in maps.split(b"\n") if b" (deleted)" in maps else []:
        words = line.split(None, 5)
        if line.endswith(b" (deleted)") and words[3] == wanted:
            start, stop = (int(word, 16) for word in words[0].split(b"-"))
            sizes[int(words[4])] = sizes.get(int(words[4]), 0) + stop - start
    yield from sizes.items()


def resident_bytes(process: int) -> int:
    """Memory of a process that is not shared with others through files."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{process}/status") as f:
        lines = dict(line.split(":", 1) for line in f if line.startswith(("RssAnon", "RssShmem")))
        return sum(int(value.split()[0]) * 1024 for value in lines.values())
    return 0
