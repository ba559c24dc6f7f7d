"""The benchmark's rows as a picture: what was reached, what the card allows, what the peer did."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from gptoss_harmony.errors import UsageError
from gptoss_triton.bench.row import Row

WAYS = (".svg", ".png", ".pdf")


def check_chart(path: str) -> Path:
    """See, before anything is measured, that the picture can be drawn there.

    Raises:
        UsageError: an unknown ending, no such folder, or no Matplotlib.
    """
    target = Path(path)
    if target.suffix not in WAYS:
        raise UsageError(f"--chart {path}: the name must end in {', '.join(WAYS)}")
    if not target.parent.is_dir():
        raise UsageError(f"--chart {path}: there is no folder {target.parent}")
    if find_spec("matplotlib") is None:
        raise UsageError("--chart needs Matplotlib: pip install 'gptoss-triton[chart]'")
    return target


def draw_chart(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Draw one group of bars a row, on a logarithmic scale.

    Args:
        rows: ours and the peer's.
        path: a file that `check_chart` has passed.
        title: the card and the model.
    """
    from matplotlib.figure import Figure

    ours = [row for row in rows if row.engine == "triton"]
    peers = {row.work: row.rate for row in rows if row.engine == "peer"}
    figure = Figure(figsize=(9, 1.2 + 0.5 * len(ours)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(ours))
    ceilings = [row.ceiling or 0.0 for row in ours]
    axes.barh(places, ceilings, height=0.7, color="#e4e4e7", label="ceiling in this run")
    axes.barh(places, [row.rate for row in ours], height=0.45, color="#2563eb", label="triton")
    if peers:
        found = [peers.get(row.work, 0.0) for row in ours]
        axes.barh(places, found, height=0.2, color="#f59e0b", label="transformers, bf16")
    for place, row in zip(places, ours, strict=True):
        share = "" if row.share is None else f" ({row.share:.0%})"
        axes.annotate(
            f" {row.rate:,.0f}{share}", (max(row.rate, row.ceiling or 0.0), place), va="center"
        )
    axes.set_yticks(places, [f"{row.what}, batch {row.batch}, {row.context:,}" for row in ours])
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.5 / (len(ours) + 1))
    axes.invert_yaxis()
    axes.set_xlabel("tokens per second")
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncol=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
