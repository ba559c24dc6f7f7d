"""Which tile sizes each kernel runs with: a table by operation, card and number of tokens.

`tuning.json` holds what `gptoss bench tune` measured. A row says up to how many tokens it applies;
a card without rows of its own takes those of the newest card that is not newer than it and has no
more shared memory, which is a correct choice though not a measured one (`Tuning.measured` tells).

    tuning = Tuning.for_device(torch.device("cuda"))
    tuning.launch("experts_up", tokens=1)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch

from gptoss_triton.errors import UnsupportedGpu
from gptoss_triton.launch import Launch

OLDEST = 80  # Ampere: tensor-core tiles of 16 columns and asynchronous copies
MEASURED = (90,)  # the other rows are made smaller by reasoning
PDL_SINCE = 90  # Hopper
SMALL_SINCE = 120  # consumer Blackwell: 99 KiB of shared memory, where sm_90's rows take up to 128
EVERY = 1 << 30  # tokens: more than any batch has
DENSE = ("linear", "linear_out", "unembed")
FIXED_AT = 512  # tokens whose tile sizes serve any number in the fixed table
FIXED_SPLITS_AT = 4  # the same for attention, where a lone long sequence needs many programs


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: up to `tokens` tokens, launch so."""

    tokens: int
    launch: Launch


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The table of one card.

    Attributes:
        capability: 10 major + minor of the card; 0 is the interpreter.
        rows: by operation, in order of tokens.
        measured: whether the rows were measured on a card of this capability.
    """

    capability: int
    rows: Mapping[str, Sequence[Row]]
    measured: bool

    @classmethod
    def for_device(cls, device: torch.device) -> Tuning:
        """Choose the rows for a card.

        Raises:
            UnsupportedGpu: the card is older than sm_80.
        """
        if device.type != "cuda":
            return cls.for_capability(0)
        major, minor = torch.cuda.get_device_capability(device)
        return cls.for_capability(10 * major + minor)

    @classmethod
    def for_capability(cls, capability: int) -> Tuning:
        """The same by number: 90 for Hopper, 0 for the interpreter."""
        if 0 < capability < OLDEST:
            raise UnsupportedGpu(
                f"this GPU is sm_{capability}; the Triton engine needs sm_{OLDEST} or newer "
                "(Ampere or later): use `--engine torch` or `--engine metal`"
            )
        tables = json.loads(files("gptoss_triton").joinpath("tuning.json").read_text())["cards"]
        known = sorted(int(name) for name in tables)
        # The rows of sm_80 also fit the 99 KiB of sm_86 and sm_89.
        like = OLDEST if capability >= SMALL_SINCE else capability
        nearest = max((name for name in known if name <= like), default=known[0])
        pdl = capability >= PDL_SINCE
        rows = {
            operation: [Row(int(line["tokens"]), read_launch(line, pdl=pdl)) for line in lines]
            for operation, lines in tables[str(nearest)].items()
        }
        return cls(capability=capability, rows=rows, measured=capability in MEASURED)

    def fixed(self) -> Tuning:
        """The same card with one form and one tile size for any number of tokens.

        Every row of a batch is then computed alike, whatever stands beside it.
        """
        rows = {}
        for operation, lines in self.rows.items():
            tokens = FIXED_SPLITS_AT if operation == "attention_decode" else FIXED_AT
            rows[operation] = [Row(EVERY, self.launch(operation, tokens))]
            if operation.endswith("_few"):
                rows[operation] = [Row(0, lines[0].launch)]
            if operation in DENSE:
                rows[operation] = [Row(EVERY, self.launch("dense_fixed", FIXED_AT))]
        return Tuning(capability=self.capability, rows=rows, measured=self.measured)

    def launch(self, operation: str, tokens: int) -> Launch:
        """Tile sizes for an operation over so many tokens; the last row serves any number."""
        lines = self.rows[operation]
        return next((line.launch for line in lines if tokens <= line.tokens), lines[-1].launch)

    def at(self, tokens: int) -> dict[str, Launch]:
        """`launch` of every operation."""
        return {operation: self.launch(operation, tokens) for operation in self.rows}

    def limit(self, operation: str) -> int:
        """The most tokens that the rows of an operation were made for."""
        return self.rows[operation][-1].tokens


def read_launch(line: Mapping[str, Any], *, pdl: bool) -> Launch:
    """Read one line; PDL is a property of the card, not of the line."""
    sizes = {name: value for name, value in line.items() if name != "tokens"}
    masked = bool(sizes.pop("masked", 0))
    return Launch(pdl=pdl, masked=masked, **sizes)
