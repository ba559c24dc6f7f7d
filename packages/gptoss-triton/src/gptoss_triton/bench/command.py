"""`gptoss bench --engine triton`: how fast, how far from the card's limit, how much memory."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from dataclasses import asdict

import torch

from gptoss_harmony.config import gpt_oss_20b, gpt_oss_120b
from gptoss_triton.bench.ceilings import measure_rates
from gptoss_triton.bench.measure import Bench, Row, mix
from gptoss_triton.build import Machine, build_machine, check_device, open_checkpoint
from gptoss_triton.engine import TritonEngine
from gptoss_triton.options import TritonOptions
from gptoss_triton.weights import random_weights

HELP = "decode, prefill and a request mix on one GPU, each beside the limit measured in the run"
SIZES = {"20b": gpt_oss_20b, "120b": gpt_oss_120b}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--size", choices=sorted(SIZES), default="20b", help="random weights of these shapes"
    )
    what.add_argument("--checkpoint", metavar="CHECKPOINT", help="real weights instead")
    parser.add_argument("--device", default="cuda", help="default cuda")
    parser.add_argument(
        "--batch", type=int, nargs="*", default=[1, 8, 32, 64, 256], metavar="N", help="decode"
    )
    parser.add_argument(
        "--context", type=int, nargs="*", default=[1024, 8192, 32768, 131071], metavar="N",
        help="tokens that each sequence has when decoding",
    )  # fmt: skip
    parser.add_argument(
        "--prompt", type=int, nargs="*", default=[1024, 8192, 32768], metavar="N", help="prefill"
    )
    parser.add_argument(
        "--requests", type=int, default=256, metavar="N", help="of the mix; 0 leaves it out"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure and print a table or JSON."""
    device = check_device(args.device)
    with torch.inference_mode(), torch.cuda.device(device):
        rates = measure_rates(device)
        torch.cuda.empty_cache()
        start = time.perf_counter()
        machine = _machine(args, device)
        torch.cuda.synchronize()
        opened = time.perf_counter() - start
        _say(str(machine.memory))
        rows = _rows(args, Bench(machine, rates))
    if args.requests:
        with closing(TritonEngine(machine)) as engine:
            mix(engine, min(8, args.requests), seed=1)  # compiles and captures
            mix(engine, args.requests, seed=2)
            rows.append(mix(engine, args.requests, seed=3))
    report = {
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "bandwidth_TB_s": rates.bandwidth / 1e12,
        "gemm_TFLOP_s": rates.gemm / 1e12,
        "open_s": opened,
        "peak_GB": torch.cuda.max_memory_allocated(device) / 1e9,
        "tuned_for_this_card": machine.runner.model.tuning.measured,
        "rows": [asdict(row) | {"share": row.share} for row in rows],
    }
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report, rows)
    return 0


def _machine(args: argparse.Namespace, device: torch.device) -> Machine:
    """Real or random weights, everything else from the default options."""
    options = TritonOptions(device=args.device, prefix_reuse=False)
    if args.checkpoint:
        return build_machine(open_checkpoint(args.checkpoint), device, options)
    return build_machine(random_weights(SIZES[args.size](), device), device, options)


def _rows(args: argparse.Namespace, bench: Bench) -> list[Row]:
    """Every measurement that fits, said as it comes."""
    rows: list[Row] = []
    for batch in args.batch:
        for context in args.context:
            row = bench.decode(batch, context)
            if row is None:
                _say(f"decode, batch {batch}, context {context}: does not fit, left out")
            else:
                rows.append(row)
    for prompt in args.prompt:
        row = bench.prefill(prompt)
        if row is None:
            _say(f"prefill of {prompt}: does not fit, left out")
        else:
            rows.append(row)
    return rows


def _say(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)


def _print(report: dict[str, object], rows: list[Row]) -> None:
    """A table for people."""
    for name in ("device", "torch", "bandwidth_TB_s", "gemm_TFLOP_s", "open_s", "peak_GB"):
        value = report[name]
        print(f"{name:16} {value:.2f}" if isinstance(value, float) else f"{name:16} {value}")
    print(f"{'what':9}{'batch':>6}{'context':>9}{'tok/s':>11}{'ceiling':>11}{'share':>7}  note")
    for row in rows:
        ceiling = "" if row.ceiling is None else f"{row.ceiling:,.0f}"
        share = "" if row.share is None else f"{row.share:.0%}"
        print(
            f"{row.what:9}{row.batch:>6}{row.context:>9}{row.rate:>11,.0f}{ceiling:>11}{share:>7}"
            f"  {row.note}"
        )
