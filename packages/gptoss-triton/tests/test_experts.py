import pytest
import torch

from gptoss_core import ops
from gptoss_harmony import mxfp4 as numpy_mxfp4
from gptoss_triton.experts import PackedMatrix, SplitSums, experts_direct, experts_grouped
from gptoss_triton.launch import Launch
from gptoss_triton.mxfp4 import interleave_gate_up, pack_panels
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


@pytest.mark.parametrize(
    ("form", "tokens", "pairs", "rows", "splits"),
    [
        ("direct", 2, 8, 16, 2),
        ("direct", 1, 16, 64, 1),
        ("grouped", 9, 16, 32, 1),
        ("grouped", 21, 64, 64, 1),
    ],
)
def test_pairs_match_the_expanded_matrices(place, form, tokens, pairs, rows, splits):
    width, inner = 64, 96  # 96: the second product has a panel that is half full
    first = packed(place, 2 * inner, width, fused=True)
    second = packed(place, width, inner, fused=False)
    x = place.random(tokens, width)
    chosen = torch.randint(0, EXPERTS, (tokens * CHOSEN,))
    gates = torch.rand(tokens * CHOSEN)
    hidden = place.poisoned(tokens * CHOSEN, inner)
    out = place.poisoned(tokens * CHOSEN, width, dtype=torch.float32)
    scaled = pairs == 64
    launch = Launch(rows=rows, pairs=pairs, unroll=1 + (rows == 16), splits=splits, scaled=scaled)
    if place.device.type == "cuda" and not scaled:
        x, hidden = x.half(), hidden.half()
    ours, gates_there = place.ints(chosen), gates.to(place.device)
    if form == "direct":
        sums = SplitSums.empty(
            pairs=tokens * CHOSEN, rows=2 * inner, launch=launch, device=place.device
        )
        experts_direct(x, first[0], ours, gates_there, hidden, sums, swiglu=7.0, launch=launch)
        experts_direct(hidden, second[0], ours, gates_there, out, sums, swiglu=None, launch=launch)
        assert not sums.arrived.any()
    else:
        plan = Plan.empty(pairs=tokens * CHOSEN, experts=EXPERTS, tile=pairs, device=place.device)
        make_plan(ours, plan, torch.empty_like(ours), launch=launch)
        experts_grouped(x, first[0], plan, gates_there, hidden, swiglu=7.0, launch=launch)
        experts_grouped(hidden, second[0], plan, gates_there, out, swiglu=None, launch=launch)
    expected_hidden, expected = reference(x, chosen, first, second, gates)
    place.close(hidden, expected_hidden)
    place.close(out, expected)


def test_unused_rows_are_skipped(place):
    matrix = packed(place, 64, 64, fused=False)
    x = place.random(2, 64, dtype=torch.float16 if place.device.type == "cuda" else None)
    chosen = place.ints([1, 2, -1, -1])
    gates = torch.ones(4, device=place.device)
    for form in ("direct", "grouped"):
        out = place.poisoned(4, 64, dtype=torch.float32)
        launch = Launch(rows=16, pairs=16)
        if form == "direct":
            sums = SplitSums.empty(pairs=4, rows=64, launch=launch, device=place.device)
            experts_direct(x, matrix[0], chosen, gates, out, sums, swiglu=None, launch=launch)
        else:
            plan = Plan.empty(pairs=4, experts=EXPERTS, tile=16, device=place.device)
            make_plan(chosen, plan, torch.empty_like(chosen), launch=launch)
            experts_grouped(x, matrix[0], plan, gates, out, swiglu=None, launch=launch)
        assert torch.isfinite(out[:2]).all()
        assert torch.isnan(out[2:]).all()
