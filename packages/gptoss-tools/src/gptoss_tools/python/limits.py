"""What code may use inside a jail."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gptoss_harmony.errors import UsageError

MiB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one call (time, output) and of one jail (everything else).

    Attributes:
        seconds: wall-clock time of a call.
        memory_bytes: memory of all processes together.
        processes: processes and threads together.
        cpus: processors' worth of time; enforced where there are control groups.
        disk_bytes: files in /mnt/data, and again in /tmp and in /dev/shm.
        files: number of files and folders in /mnt/data.
        output_chars: text given back; more is cut in the middle.
        flood_bytes: a call that writes more output than this is stopped.
    """

    seconds: float = 120.0
    memory_bytes: int = 1024 * MiB
    processes: int = 64
    cpus: float = 1.0
    disk_bytes: int = 256 * MiB
    files: int = 10_000
    output_chars: int = 20_000
    flood_bytes: int = 64 * MiB

    def __post_init__(self) -> None:
        """Refuse bounds in which no Python starts."""
        for name in self.__dataclass_fields__:
            if not 0 < getattr(self, name) < math.inf:  # nan is neither
                raise UsageError(
                    f"limit {name} must be positive and finite, not {getattr(self, name)}"
                )
        if self.memory_bytes < 64 * MiB:
            raise UsageError("limit memory_bytes must be at least 64 MiB: Python needs that much")
