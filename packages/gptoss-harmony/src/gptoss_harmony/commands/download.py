"""`gptoss download`: the published weights, resumable."""

from __future__ import annotations

import argparse
from pathlib import Path

from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.checkpoint_path import HUB_MODELS
from gptoss_harmony.hub_download import download_model

HELP = "download the published weights from the Hugging Face Hub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        choices=HUB_MODELS,
        type=lambda text: text.removeprefix("openai/"),
        help=" or ".join(HUB_MODELS),
    )
    parser.add_argument(
        "--layout",
        choices=("original", "hf", "metal"),
        default="original",
        help="which of the published files (default: original); every engine but metal reads "
        "original and hf, vLLM and Transformers need hf",
    )
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="plain folder to write to (default: the Hugging Face cache, shared with other tools)",
    )


def run(args: argparse.Namespace) -> int:
    """Download, check the headers, and say how to use the result."""
    folder = download_model(args.model, layout=args.layout, to=args.to)
    if args.layout == "metal":
        print(f"{folder / 'model.bin'}: for the engine metal")
        return 0
    checkpoint = Checkpoint.open(folder)
    name = args.model if args.to is None else folder
    print(f"{folder}: {checkpoint.layout}, {checkpoint.nbytes / 1e9:.2f} GB, complete")
    print(f"try: gptoss generate {name} -p 'Why is the sky blue?'")
    return 0
