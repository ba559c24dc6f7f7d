"""`gptoss bench tune`: try tile sizes on this card and print the table rows that win.

Each operation runs on random data of the 20b shapes, several sets in turn so that nothing stays in
the cache, as a CUDA graph. Candidates that do not compile or do not fit are reported and skipped.
Both expert products of a step share a plan: in the table, their rows must have the same `pairs`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch

from gptoss_harmony.config import ModelConfig, gpt_oss_20b
from gptoss_triton.bench.ceilings import elapsed
from gptoss_triton.build import check_device
from gptoss_triton.experts_few import experts_few
from gptoss_triton.experts_grouped import experts_grouped
from gptoss_triton.launch import Launch
from gptoss_triton.linear import linear
from gptoss_triton.mxfp4 import PackedMatrix
from gptoss_triton.plan import Plan, make_plan
from gptoss_triton.tuning import PDL_SINCE, read_launch

HELP = "try tile sizes of the kernels on this card; prints rows for the tuning table"
SETS = 3  # of weights, each larger than the cache
CALLS = 12  # in one graph

Case = Callable[[Launch], Callable[[int], None]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--device", default="cuda", help="default cuda")
    parser.add_argument(
        "--tokens", type=int, nargs="*", default=[1, 4, 64, 256, 8192], metavar="N", help="sizes"
    )
    parser.add_argument("--json", action="store_true", help="print only the winning rows")


def run(args: argparse.Namespace) -> int:
    """Time every candidate; print the best of each operation and size."""
    device = check_device(args.device)
    major, minor = torch.cuda.get_device_capability(device)
    pdl = 10 * major + minor >= PDL_SINCE
    winners: dict[str, list[dict[str, object]]] = {}
    with torch.inference_mode(), torch.cuda.device(device):
        shapes = Shapes(gpt_oss_20b(), device)
        for tokens in args.tokens:
            for name, candidates, case in shapes.cases(tokens):
                timed = []
                for sizes in candidates:
                    launch = read_launch(sizes, pdl=pdl)
                    seconds = _time(case(launch), name, launch)
                    if seconds is not None:
                        timed.append((seconds, launch))
                        if not args.json:
                            print(f"{name:20} {tokens:6} {seconds * 1e6:9.2f} us  {sizes}")
                if timed:
                    best = min(timed, key=lambda pair: pair[0])[1]
                    row = {"tokens": tokens, **asdict(best)}
                    row.pop("pdl")
                    winners.setdefault(name, []).append(row)
    print(json.dumps({f"{major}{minor}": winners}, indent=2))
    return 0


def _time(call: Callable[[int], None], name: str, launch: Launch) -> float | None:
    """Seconds of one call inside a graph; None if the candidate does not run."""
    try:
        call(0)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for turn in range(CALLS):
                call(turn)
    except Exception as error:  # a compiler or driver error of any kind only rules this one out
        print(f"{name} {launch}: left out, {str(error)[:120]}", file=sys.stderr)
        return None
    return elapsed(graph.replay, 1) / CALLS


class Shapes:
    """Random operands of one layer's operations.

    Args:
        config: sizes.
        device: where.
    """

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        width, inner = config.hidden_size, config.intermediate_size
        self.up = [self._packed(2 * inner, width) for _ in range(SETS)]
        self.down = [self._packed(width, inner) for _ in range(SETS)]
        self.qkv = [self._normal(config.qkv_size, width) for _ in range(2 * SETS)]

    def _normal(self, *shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=self.device)

    def _packed(self, rows: int, columns: int) -> PackedMatrix:
        """Bytes that decode to something, in the kernels' layout."""
        experts, panels = self.config.num_experts, -(-columns // 64)
        blocks = torch.empty((experts, panels, rows * 32), dtype=torch.uint8, device=self.device)
        words = torch.empty(
            (experts, -(-panels // 2), rows, 4), dtype=torch.uint8, device=self.device
        )
        return PackedMatrix(
            blocks=blocks.random_(0, 256),
            scales=words.random_(118, 122).view(torch.int32).squeeze(-1),
            bias=self._normal(experts, rows),
            columns=columns,
        )

    def cases(self, tokens: int) -> Iterator[tuple[str, list[dict[str, int]], Case]]:
        """Operation, candidates, and what makes a call of a launch."""
        if tokens == 1:
            yield "linear", list(_linear_candidates()), self._linear
        for name in ("up", "down"):
            if tokens <= 4:
                candidates = list(_few_candidates())
                yield f"experts_{name}_few", candidates, self._few(name, tokens)
            else:
                candidates = list(_grouped_candidates(tokens))
                yield f"experts_{name}", candidates, self._grouped(name, tokens)

    def _linear(self, launch: Launch) -> Callable[[int], None]:
        x = self._normal(1, self.config.hidden_size)
        out = self._normal(1, self.config.qkv_size)

        def call(turn: int) -> None:
            linear(x, self.qkv[turn % len(self.qkv)], None, out, launch=launch)

        return call

    def _operands(
        self, name: str, tokens: int
    ) -> tuple[list[PackedMatrix], torch.Tensor, torch.Tensor, float | None]:
        """Matrices, input and output of a product, and its activation's limit."""
        config, pairs = self.config, tokens * self.config.experts_per_token
        inner, width = config.intermediate_size, config.hidden_size
        if name == "up":
            return (
                self.up,
                self._normal(tokens, width),
                self._normal(pairs, inner),
                config.swiglu_limit,
            )
        out = self._normal(pairs, width, dtype=torch.float32)
        return self.down, self._normal(pairs, inner), out, None

    def _chosen(self, tokens: int) -> torch.Tensor:
        """Uniformly random choices."""
        scores = torch.rand(tokens, self.config.num_experts, device=self.device)
        return scores.topk(self.config.experts_per_token).indices.int().flatten().contiguous()

    def _few(self, name: str, tokens: int) -> Case:
        def case(launch: Launch) -> Callable[[int], None]:
            matrices, x, out, limit = self._operands(name, tokens)
            chosen = [self._chosen(tokens) for _ in range(CALLS)]
            gates = torch.rand(chosen[0].shape, device=self.device)

            def call(turn: int) -> None:
                matrix, experts = matrices[turn % SETS], chosen[turn % CALLS]
                experts_few(x, matrix, experts, gates, out, swiglu=limit, launch=launch)

            return call

        return case

    def _grouped(self, name: str, tokens: int) -> Case:
        def case(launch: Launch) -> Callable[[int], None]:
            matrices, x, out, limit = self._operands(name, tokens)
            chosen = self._chosen(tokens)
            gates = torch.rand(chosen.shape, device=self.device)
            plan = Plan.empty(
                pairs=chosen.numel(),
                experts=self.config.num_experts,
                tile=launch.pairs,
                device=self.device,
            )
            make_plan(chosen, plan, launch=Launch(columns=8192, warps=16))

            def call(turn: int) -> None:
                matrix = matrices[turn % SETS]
                experts_grouped(x, matrix, plan, gates, out, swiglu=limit, launch=launch)

            return call

        return case


def _product(**choices: tuple[int, ...]) -> Iterator[dict[str, int]]:
    """All combinations."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def _linear_candidates() -> Iterator[dict[str, int]]:
    yield from _product(rows=(2, 4, 8, 16), warps=(2, 4, 8), pairs=(1,))


def _few_candidates() -> Iterator[dict[str, int]]:
    yield from _product(rows=(16,), warps=(1, 2, 4, 8), stages=(1, 2, 4))
    yield from _product(rows=(32,), warps=(4, 8), stages=(1, 2))


def _grouped_candidates(tokens: int) -> Iterator[dict[str, int]]:
    if tokens <= 16:
        yield from _product(rows=(64, 128), pairs=(16,), stages=(3, 4), registers=(0, 96))
    elif tokens <= 128:
        yield from _product(rows=(128,), pairs=(16, 32), stages=(3, 4), registers=(0, 96))
    elif tokens <= 1024:
        yield from _product(
            rows=(128,), pairs=(32, 64), stages=(3,), masked=(1,), registers=(0, 168)
        )
    else:
        yield from _product(rows=(128,), pairs=(64, 128), stages=(3,), masked=(0, 1))
        yield from _product(rows=(256,), pairs=(128,), warps=(8,), stages=(3,), masked=(0, 1))
