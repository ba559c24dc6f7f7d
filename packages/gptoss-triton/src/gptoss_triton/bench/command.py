"""`gptoss bench --engine triton`: how fast, how far from the card's limit, how much memory."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from dataclasses import asdict

import torch

from gptoss_core.benches.load import plain_read
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config import gpt_oss_20b, gpt_oss_120b
from gptoss_triton.bench.ceilings import measure_rates
from gptoss_triton.bench.chart import check_chart, draw_chart
from gptoss_triton.bench.measure import Bench, mix
from gptoss_triton.bench.peer import run_peer
from gptoss_triton.bench.row import Row
from gptoss_triton.build import build_machine, check_device, open_checkpoint
from gptoss_triton.engine import TritonEngine
from gptoss_triton.options import TritonOptions
from gptoss_triton.weights import ModelWeights, random_weights

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
    parser.add_argument(
        "--peer", choices=["transformers"], help="run the same work through it afterwards"
    )
    parser.add_argument("--chart", metavar="FILE", help="draw the rows, as .svg, .png or .pdf")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure and print a table or JSON."""
    device = check_device(args.device)
    chart = check_chart(args.chart) if args.chart else None
    source = open_checkpoint(args.checkpoint) if args.checkpoint else None
    report: dict[str, object] = {
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "model": args.checkpoint or f"{args.size}, random weights",
    }
    if source is not None:  # it comes first, and warms the file cache for both
        report["plain_read_s"] = plain_read(source.files, device)
    config = SIZES[args.size]() if source is None else source.config
    rows, left_out = _ours(args, source or random_weights(config, device), device, report)
    if args.peer:
        found, reasons = run_peer(
            config, device=args.device, batch=args.batch, context=args.context, prompt=args.prompt
        )
        rows, left_out = rows + found, left_out + reasons
    report["left_out"] = left_out
    report["rows"] = [asdict(row) | {"share": row.share} for row in rows]
    if chart is not None:
        draw_chart(rows, chart, title=f"{report['model']} on {report['device']}")
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report, rows)
    return 0


def _ours(
    args: argparse.Namespace,
    source: Checkpoint | ModelWeights,
    device: torch.device,
    report: dict[str, object],
) -> tuple[list[Row], list[str]]:
    """Open the engine, measure, close it; completes the report's head."""
    options = TritonOptions(device=args.device, prefix_reuse=False)
    with torch.cuda.device(device):
        rates = measure_rates(device)
        torch.cuda.empty_cache()
        start = time.perf_counter()
        machine = build_machine(source, device, options)  # its threads know no inference mode
        torch.cuda.synchronize()
        report["open_s"] = time.perf_counter() - start
        _say(str(machine.memory))
        with torch.inference_mode():
            rows, left_out = _rows(args, Bench(machine, rates))
    if args.requests:
        with closing(TritonEngine(machine)) as engine:
            mix(engine, min(8, args.requests), seed=1)  # compiles and captures
            mix(engine, args.requests, seed=2)
            rows.append(mix(engine, args.requests, seed=3))
    report |= {
        "bandwidth_TB_s": rates.bandwidth / 1e12,
        "gemm_TFLOP_s": rates.gemm / 1e12,
        "peak_GB": torch.cuda.max_memory_allocated(device) / 1e9,
        "tuned_for_this_card": machine.runner.model.tuning.measured,
    }
    machine.free()  # the peer wants the memory
    return rows, left_out


def _rows(args: argparse.Namespace, bench: Bench) -> tuple[list[Row], list[str]]:
    """Every measurement that fits, and what did not."""
    rows: list[Row] = []
    left_out: list[str] = []
    cases = [("decode", batch, context) for batch in args.batch for context in args.context]
    cases += [("prefill", 1, prompt) for prompt in args.prompt]
    for what, batch, tokens in cases:
        row = bench.decode(batch, tokens) if what == "decode" else bench.prefill(tokens)
        if row is None:
            left_out.append(f"{what}, batch {batch}, {tokens} tokens: the pages do not suffice")
            _say(left_out[-1])
        else:
            rows.append(row)
    return rows, left_out


def _say(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)


def _print(report: dict[str, object], rows: list[Row]) -> None:
    """A table for people."""
    for name, value in report.items():
        if not isinstance(value, list):
            print(f"{name:20} {value:.2f}" if isinstance(value, float) else f"{name:20} {value}")
    print(
        f"{'engine':8}{'what':9}{'batch':>6}{'context':>9}{'tok/s':>11}{'ceiling':>11}{'share':>7}"
        "  note"
    )
    for row in rows:
        ceiling = "" if row.ceiling is None else f"{row.ceiling:,.0f}"
        share = "" if row.share is None else f"{row.share:.0%}"
        print(
            f"{row.engine:8}{row.what:9}{row.batch:>6}{row.context:>9}{row.rate:>11,.0f}"
            f"{ceiling:>11}{share:>7}  {row.note}"
        )
    for reason in report["left_out"] if isinstance(report["left_out"], list) else []:
        print(f"left out: {reason}")
