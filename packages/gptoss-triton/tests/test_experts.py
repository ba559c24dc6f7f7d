from dataclasses import dataclass

import pytest
import torch

from gptoss_core import ops
from gptoss_harmony import mxfp4 as numpy_mxfp4
from gptoss_triton.experts_few import experts_few
from gptoss_triton.experts_grouped import experts_grouped
from gptoss_triton.launch import Launch
from gptoss_triton.mxfp4 import PackedMatrix, interleave_gate_up, pack_panels
from gptoss_triton.plan import Plan, make_plan

EXPERTS, CHOSEN = 5, 2


def packed(place, rows, columns, *, fused):
    """A random matrix of all experts: ours, and the expanded float32 twin in checkpoint order."""
    blocks = torch.randint(0, 256, (EXPERTS, rows, columns // 32, 16), dtype=torch.uint8)
    scales = torch.randint(118, 124, (EXPERTS, rows, columns // 32), dtype=torch.uint8)
    dense = torch.from_numpy(numpy_mxfp4.unpack(blocks.numpy(), scales.numpy())).float()
    bias = torch.randn(EXPERTS, rows)
    parts = [interleave_gate_up(t) if fused else t for t in (blocks, scales, bias)]
    our_blocks, our_scales = pack_panels(parts[0].to(place.device), parts[1].to(place.device))
    ours = PackedMatrix(
        blocks=our_blocks,
        scales=our_scales,
        bias=parts[2].to(place.device, place.dtype),
        columns=columns,
    )
    return ours, dense.reshape(EXPERTS, rows, columns), bias.to(place.dtype).float()


def reference(x, chosen, first, second, gates):
    """Every pair by itself in float32."""
    (_, w1, b1), (_, w2, b2) = first, second
    x = x.float().cpu()
    hidden, out = [], []
    for pair, expert in enumerate(chosen.tolist()):
        fused = w1[expert] @ x[pair // CHOSEN] + b1[expert]
        hidden.append(ops.swiglu(fused, 7.0))
        out.append(gates[pair] * (w2[expert] @ hidden[-1] + b2[expert]))
    return torch.stack(hidden), torch.stack(out)


@dataclass(frozen=True)
class Product:
    """One product of either form over the same pairs."""

    place: object
    chosen: torch.Tensor
    gates: torch.Tensor

    def __call__(self, x, matrix, out, *, swiglu, launch, few):
        chosen, gates = self.place.ints(self.chosen), self.gates.to(self.place.device)
        if few:
            experts_few(x, matrix, chosen, gates, out, swiglu=swiglu, launch=launch)
            return
        plan = Plan.empty(
            pairs=len(chosen), experts=EXPERTS, tile=launch.pairs, device=self.place.device
        )
        make_plan(chosen, plan, launch=Launch())
        experts_grouped(x, matrix, plan, gates, out, swiglu=swiglu, launch=launch)


def inputs(place, *shape):
    """Random activations in the dtype that the kernels take them."""
    return place.random(*shape, dtype=torch.float16 if place.device.type == "cuda" else None)


FEW = [Launch(rows=16), Launch(rows=16, warps=1, stages=2), Launch(rows=32, warps=2, stages=1)]
GROUPED = [
    Launch(rows=32, pairs=16),
    Launch(rows=64, pairs=64, masked=True, stages=2),
    Launch(rows=128, pairs=32, registers=128),
]


@pytest.mark.parametrize("launch", FEW + GROUPED)
def test_pairs_match_the_expanded_matrices(place, launch):
    width, inner = 64, 96  # 96: the second product has a panel that is half full
    few = launch in FEW
    tokens = 3 if few else 21
    first = packed(place, 2 * inner, width, fused=True)
    second = packed(place, width, inner, fused=False)
    x = inputs(place, tokens, width)
    product = Product(
        place, torch.randint(0, EXPERTS, (tokens * CHOSEN,)), torch.rand(tokens * CHOSEN)
    )
    hidden = place.poisoned(tokens * CHOSEN, inner, dtype=x.dtype)
    out = place.poisoned(tokens * CHOSEN, width, dtype=torch.float32)
    product(x, first[0], hidden, swiglu=7.0, launch=launch, few=few)
    product(hidden, second[0], out, swiglu=None, launch=launch, few=few)
    expected_hidden, expected = reference(x, product.chosen, first, second, product.gates)
    place.close(hidden, expected_hidden)
    place.close(out, expected)


@pytest.mark.parametrize(("warps", "stages"), [(1, 2), (2, 1), (1, 3)])
def test_few_walks_wide_inputs(place, warps, stages):
    """More quads than a warp asks for ahead; the last one is a run of 32 columns only."""
    columns = 4 * 256 + 32
    ours, dense, bias = packed(place, 32, columns, fused=False)
    x = inputs(place, 1, columns)
    scales = torch.tensor([1e-3, 1.0, 1e3]).repeat(columns)[:columns]
    x *= scales.to(x.device, x.dtype)
    out = place.poisoned(1, 32, dtype=torch.float32)
    launch = Launch(rows=16, warps=warps, stages=stages)
    product = Product(place, torch.tensor([3]), torch.tensor([0.5]))
    product(x, ours, out, swiglu=None, launch=launch, few=True)
    place.close(out[0], 0.5 * (dense[3] @ x[0].float().cpu() + bias[3]))


@pytest.mark.parametrize("launch", [FEW[0], GROUPED[0]])
def test_unused_rows_are_skipped(place, launch):
    matrix = packed(place, 64, 64, fused=False)
    product = Product(place, torch.tensor([1, 2, -1, -1]), torch.ones(4))
    out = place.poisoned(4, 64, dtype=torch.float32)
    product(inputs(place, 2, 64), matrix[0], out, swiglu=None, launch=launch, few=launch in FEW)
    assert torch.isfinite(out[:2]).all()
    assert torch.isnan(out[2:]).all()
