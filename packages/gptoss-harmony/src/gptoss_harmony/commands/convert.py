"""`gptoss convert`: original <-> Hugging Face, MXFP4 <-> bf16."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.convert import Conversion, convert_checkpoint
from gptoss_harmony.errors import UsageError
from gptoss_harmony.layout import Layout
from gptoss_harmony.progress import ProgressBar

HELP = "write a checkpoint in another layout"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("source", metavar="SRC", help="nano, a downloaded hub id, or a folder")
    parser.add_argument("target", metavar="DST", type=Path, help="new folder; never overwritten")
    parser.add_argument(
        "--to",
        required=True,
        choices=("original", "hf"),
        help="original: names and files as OpenAI's tools read them; hf: as Transformers does",
    )
    parser.add_argument(
        "--dtype",
        choices=("mxfp4", "bf16"),
        help="of the experts (default: as in SRC); bf16 only with --to hf; mxfp4 from bf16 rounds",
    )
    parser.add_argument(
        "--shard-gb",
        type=float,
        metavar="GB",
        help="start a new file before one exceeds this (default: 5 for hf, one file for original)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Convert and say what came of it."""
    source = Checkpoint.open(args.source)
    layout = target_layout(source.layout, args.to, args.dtype)
    with ProgressBar("convert", source.nbytes, stream=sys.stderr) as bar:
        conversion = convert_checkpoint(
            source,
            args.target,
            layout=layout,
            max_shard_bytes=_shard_bytes(args.shard_gb, layout),
            progress=bar.advance,
        )
    _report(conversion, as_json=args.json)
    return 0


def target_layout(source: Layout, to: str, dtype: str | None) -> Layout:
    """The layout that the flags ask for.

    Raises:
        UsageError: there is no such layout, or rounding was not asked for.
    """
    if to == "original":
        if dtype == "bf16":
            raise UsageError("an original/ checkpoint has MXFP4 experts: use --to hf with bf16")
        if source == "hf-bf16" and dtype is None:
            raise UsageError(
                "the experts of SRC are bf16 and those of an original/ checkpoint MXFP4: "
                "add --dtype mxfp4 to round them"
            )
        return "original"
    keeps = "bf16" if source == "hf-bf16" else "mxfp4"
    return "hf-bf16" if (dtype or keeps) == "bf16" else "hf-mxfp4"


def _shard_bytes(gigabytes: float | None, layout: Layout) -> int | None:
    """The largest file, in bytes."""
    if gigabytes is None:
        return None if layout == "original" else 5 * 10**9
    if not gigabytes > 0:
        raise UsageError(f"--shard-gb must be positive, not {gigabytes}")
    return int(gigabytes * 1e9)


def _report(conversion: Conversion, *, as_json: bool) -> None:
    """Print the result."""
    if as_json:
        result = {
            "folder": str(conversion.folder),
            "layout": conversion.layout,
            "bytes": conversion.nbytes,
            "packed_values": conversion.values,
            "rounded_values": conversion.rounded,
            "copied": list(conversion.copied),
        }
        print(json.dumps(result))
        return
    print(f"{conversion.folder}: {conversion.layout}, {conversion.nbytes / 1e9:.2f} GB")
    if conversion.values:
        print(
            f"packed {conversion.values:,} expert values, of which {conversion.rounded:,} "
            f"({conversion.rounded / conversion.values:.2%}) changed by rounding"
        )
    if conversion.layout != "original" and "tokenizer.json" not in conversion.copied:
        print(
            "no tokenizer.json beside SRC: Transformers reads the weights, and takes the tokenizer "
            "from openai/gpt-oss-20b"
        )
