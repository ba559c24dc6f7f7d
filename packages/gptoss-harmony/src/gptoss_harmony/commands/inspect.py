"""`gptoss inspect`: what is in a checkpoint and how much memory it will need where."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from gptoss_harmony import mxfp4, sizes
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.errors import CheckpointError

HELP = "show what a checkpoint holds and how much memory it needs"
_CONTEXTS = (4_096, 32_768, 131_072)
_ROWS = 4096  # of a tensor, scanned at once
_BF16_EXPONENT = 0x7F80  # all ones: infinite or NaN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("checkpoint", metavar="FILE", help="nano, a downloaded hub id, or a folder")
    parser.add_argument(
        "--scan",
        action="store_true",
        help="also read every scale and bf16 weight, and report NaN and infinity",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")


def run(args: argparse.Namespace) -> int:
    """Print the report; exit code 1 if problems were found."""
    checkpoint = Checkpoint.open(args.checkpoint)
    report = describe(checkpoint)
    if args.scan:
        report["problems"] = scan(checkpoint)
    print(json.dumps(report, indent=2) if args.json else _text(report))
    return 1 if report["problems"] else 0


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything that headers and sizes tell, in plain types; sizes in bytes."""
    config = checkpoint.config
    contexts = [c for c in _CONTEXTS if c <= config.max_context_length]
    if config.max_context_length not in contexts:
        contexts.append(config.max_context_length)
    return {
        "path": str(checkpoint.path),
        "layout": checkpoint.layout,
        "files": {path.name: path.stat().st_size for path in checkpoint.files},
        "tensors": len(checkpoint.tensors),
        "bytes": checkpoint.nbytes,
        "bytes_by_kind": dict(sizes.bytes_by_kind(config, checkpoint.layout)),
        "parameters": sizes.parameters(config),
        "active_parameters": sizes.active_parameters(config),
        "config": asdict(config),
        "memory": {
            "weights_packed": sizes.weight_bytes(config, packed=True),
            "weights_dense": sizes.weight_bytes(config, packed=False),
            "max_context": config.max_context_length,
            "cache": {
                str(context): {
                    "windows_as_rings": sizes.cache_bytes(config, context),
                    "all_positions": sizes.cache_bytes(config, context, full_windows=True),
                }
                for context in contexts
            },
        },
        "notes": list(checkpoint.notes),
        "problems": [],
    }


def scan(checkpoint: Checkpoint) -> list[str]:
    """Read scales and bf16 tensors and list those that hold NaN or infinity."""
    problems = []
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(".blocks"):
            continue  # every byte is two valid codes
        array = checkpoint.read(name)
        try:
            if tensor.dtype == "U8":
                mxfp4.check_scales(array, where=name)
                continue
        except CheckpointError as error:
            problems.append(str(error))
            continue
        bad = sum(
            int(np.count_nonzero((rows & _BF16_EXPONENT) == _BF16_EXPONENT))
            for rows in (array[i : i + _ROWS] for i in range(0, len(array), _ROWS))
        )
        if bad:
            problems.append(f"{name}: {bad} of {array.size} values are NaN or infinite")
    return problems


def _text(report: Mapping[str, Any]) -> str:
    """The report for people."""
    config, memory = report["config"], report["memory"]
    lines = [
        report["path"],
        f"  layout      {report['layout']}, {report['tensors']} tensors in "
        f"{len(report['files'])} file(s), {_size(report['bytes'])}",
        f"  parameters  {report['parameters']:,}, of which {report['active_parameters']:,} "
        "work on each token",
        f"  model       {config['num_hidden_layers']} layers, hidden {config['hidden_size']}, "
        f"{config['num_experts']} experts ({config['experts_per_token']} chosen) of "
        f"{config['intermediate_size']}, {config['num_attention_heads']} query and "
        f"{config['num_key_value_heads']} key-value heads of {config['head_dim']}",
        "  bytes       "
        + ", ".join(f"{kind} {_size(size)}" for kind, size in report["bytes_by_kind"].items()),
        "  memory      weights "
        f"{_size(memory['weights_packed'])} packed (MXFP4 experts), "
        f"{_size(memory['weights_dense'])} dense (bf16)",
    ]
    for context, cache in memory["cache"].items():
        lines.append(
            f"              + {_size(cache['windows_as_rings'])} per sequence of {int(context):,} "
            f"tokens ({_size(cache['all_positions'])} without the window trick) = "
            f"{_size(memory['weights_packed'] + cache['windows_as_rings'])} packed"
        )
    lines.append("              + activations, which depend on the engine")
    lines += [f"  note        {note}" for note in report["notes"]]
    lines += [f"  problem     {problem}" for problem in report["problems"]]
    return "\n".join(lines)


def _size(count: int) -> str:
    """Bytes for people, in decimal units."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} B"
