"""How a kernel is launched: tile sizes and what the card can do. Data, chosen once per model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Tile sizes of one kernel.

    Attributes:
        rows: weight rows (or queries, or keys) a program owns.
        pairs: tokens or (token, expert) pairs a program owns.
        columns: input columns (or pairs, or parts to join) a loop step reads, where the kernel
            leaves that open.
        splits: programs that share the input columns, or keys, of one result.
        masked: do not read the inputs of a tile's unused columns; pays where tiles are large.
        warps: warps a program.
        stages: loads in flight a program.
        registers: most registers a thread may take, for more programs a multiprocessor; 0: any.
        pdl: start this kernel while the one before it drains (sm_90 and later).
    """

    rows: int = 64
    pairs: int = 16
    columns: int = 64
    splits: int = 1
    masked: bool = False
    warps: int = 4
    stages: int = 3
    registers: int = 0
    pdl: bool = False

    def target(self, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of a launch on `device`; on the CPU those of the interpreter."""
        if device.type != "cuda":
            return {"ASM": False, "PDL": False}
        flags: dict[str, Any] = {"ASM": True, "PDL": self.pdl, "num_warps": self.warps}
        if self.pdl:
            flags["launch_pdl"] = True
        if self.registers:
            flags["maxnreg"] = self.registers
        return flags

    def plain(self, device: torch.device) -> dict[str, Any]:
        """The same for kernels without inline assembly."""
        flags = self.target(device)
        del flags["ASM"]
        return flags


def cdiv(size: int, part: int) -> int:
    """Parts that cover a size; Triton's own works inside kernels too and takes a microsecond."""
    return -(-size // part)


def power_of_two(size: int) -> int:
    """The smallest one that is not smaller; likewise."""
    return 1 << max(size - 1, 0).bit_length()
