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
        columns: input columns a loop step reads, where the kernel leaves that open.
        unroll: panels or column blocks a loop step takes.
        splits: programs that share the input columns of one result.
        scaled: apply MXFP4 scales to the weights rather than to partial sums.
        warps: warps a program.
        stages: loads in flight a program.
        prefetch: cache lines of each weight row to ask for before the inputs are there (`pdl`).
        pdl: start this kernel while the one before it drains (sm_90 and later).
    """

    rows: int = 64
    pairs: int = 16
    columns: int = 64
    unroll: int = 1
    splits: int = 1
    scaled: bool = False
    warps: int = 4
    stages: int = 3
    prefetch: int = 0
    pdl: bool = False

    def target(self, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of a launch on `device`; on the CPU those of the interpreter."""
        if device.type != "cuda":
            return {"ASM": False, "PDL": False}
        flags: dict[str, Any] = {"ASM": True, "PDL": self.pdl, "num_warps": self.warps}
        if self.pdl:
            flags["launch_pdl"] = True
        return flags

    def plain(self, device: torch.device) -> dict[str, Any]:
        """The same for kernels without inline assembly."""
        flags = self.target(device)
        del flags["ASM"]
        return flags
