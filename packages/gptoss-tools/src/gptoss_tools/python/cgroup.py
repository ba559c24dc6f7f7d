"""A control group around one jail, where this process may make one: memory, processes, processor.

Versions 1 and 2 are used as they are found. Without permission there is none, and the jail falls
back on resource limits and on watching; see `watch`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from gptoss_tools.python.limits import Limits

_BASE = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # microseconds


class Cgroup:
    """The folders of one group; `folders` is empty where none could be made."""

    def __init__(self, limits: Limits) -> None:
        self.folders: list[Path] = []
        self._unified = (_BASE / "cgroup.controllers").exists()
        name = f"gptoss-{os.getpid()}-{os.urandom(6).hex()}"
        for parent, values in self._plan(limits):
            self._make(parent / name, values)

    @property
    def bounds_memory(self) -> bool:
        """Whether the group bounds memory."""
        return any(
            (folder / "memory.max").exists() or (folder / "memory.limit_in_bytes").exists()
            for folder in self.folders
        )

    def _plan(self, limits: Limits) -> list[tuple[Path, dict[str, str]]]:
        """(parent folder, files to write) of each hierarchy."""
        quota = str(int(limits.cpus * _PERIOD))
        if self._unified:
            values = {
                "memory.max": str(limits.memory_bytes),
                "memory.swap.max": "0",
                "memory.oom.group": "1",
                "pids.max": str(limits.processes),
                "cpu.max": f"{quota} {_PERIOD}",
            }
            own = Path("/proc/self/cgroup").read_text().split("::", 1)[-1].strip()
            return [(_BASE / own.lstrip("/"), values)]
        return [
            (_BASE / "memory", {"memory.limit_in_bytes": str(limits.memory_bytes)}),
            (_BASE / "pids", {"pids.max": str(limits.processes)}),
            (_BASE / "cpu", {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": quota}),
        ]

    def _make(self, folder: Path, values: dict[str, str]) -> None:
        try:
            folder.mkdir()
        except OSError:
            return
        written = 0
        for name, value in values.items():
            with contextlib.suppress(OSError):
                (folder / name).write_text(value)
                written += 1
        if written and (folder / "cgroup.procs").exists():
            self.folders.append(folder)
        else:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def launcher(self) -> list[str]:
        """A command prefix that enters the group before it becomes the command."""
        if not self.folders:
            return []
        script = (
            'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 97; shift; done; '
            'shift; exec "$@"'
        )
        return ["/bin/sh", "-c", script, "sh", *map(str, self.folders), "--"]

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process of the group for its memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError):
                    words = (folder / name).read_text().split()
                    if int(words[words.index("oom_kill") + 1]) > 0:
                        return True
        return False

    def close(self) -> None:
        """Kill what is left and remove the group. Idempotent."""
        for folder in self.folders:
            for _ in range(50):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                self._kill(folder)
                time.sleep(0.01)
        self.folders = []

    @staticmethod
    def _kill(folder: Path) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in (folder / "cgroup.procs").read_text().split():
                os.kill(int(line), signal.SIGKILL)
