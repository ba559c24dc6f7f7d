"""The benchmark's parts that need no card."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from gptoss_harmony.config import gpt_oss_20b, gpt_oss_120b
from gptoss_harmony.errors import UsageError
from gptoss_harmony.random_checkpoint import tiny_config
from gptoss_triton.bench import peer
from gptoss_triton.bench.ceilings import Rates, decode_ceiling, prefill_ceiling
from gptoss_triton.bench.chart import check_chart, draw_chart
from gptoss_triton.bench.row import Row

H200 = Rates(bandwidth=4.24e12, gemm=790e12)


def test_ceilings_are_those_of_the_published_sizes():
    # 3.6 and 5.1 billion active weights, of which the experts take 4.25 bits.
    small = decode_ceiling(gpt_oss_20b(), H200, 1, 1024, distinct=4)
    large = decode_ceiling(gpt_oss_120b(), H200, 1, 1024, distinct=4)
    assert 1100 < small < 1200
    assert 800 < large < 900
    assert 100_000 < prefill_ceiling(gpt_oss_20b(), H200, 8192) < 130_000


def test_weights_are_counted_as_published():
    assert peer.weights(gpt_oss_20b()) == pytest.approx(20.9e9, rel=0.01)
    assert peer.weights(gpt_oss_120b()) == pytest.approx(116.8e9, rel=0.01)


@pytest.mark.transformers
@pytest.mark.slow
def test_the_peer_runs_in_a_process_of_its_own():
    config = tiny_config(vocab_size=300, num_hidden_layers=1)
    rows, left_out = peer.run_peer(config, device="cpu", batch=[1, 2], context=[8], prompt=[9000])
    assert [row.work for row in rows] == [("decode", 1, 8), ("decode", 2, 8)]
    assert all(row.rate > 0 and row.engine == "peer" for row in rows)
    assert [reason.split(":")[1].strip() for reason in left_out] == [
        "prefill, batch 1, 9000 tokens"
    ]


def test_a_peer_that_does_not_fit_is_left_out_with_the_reason(monkeypatch):
    monkeypatch.setattr(peer, "memory", lambda device: 10 << 30)
    rows, left_out = peer.run_peer(gpt_oss_20b(), device="cuda", batch=[1], context=[1], prompt=[1])
    assert not rows
    assert "42 GB of bf16 weights do not fit into 11 GB" in left_out[0]


def test_a_chart_shows_ours_and_the_peers(tmp_path):
    pytest.importorskip("matplotlib")
    ours = Row(what="decode", batch=1, context=1024, rate=543.0, ceiling=1146.0)
    theirs = replace(ours, rate=30.0, ceiling=None, engine="peer")
    path = check_chart(str(tmp_path / "speed.svg"))
    draw_chart([ours, theirs], path, title="20b")
    assert "<svg" in path.read_text()


@pytest.mark.parametrize("name", ["speed.txt", "nowhere/speed.svg"])
def test_a_chart_that_cannot_be_drawn_is_refused_before_measuring(name, tmp_path):
    with pytest.raises(UsageError, match="--chart"):
        check_chart(str(tmp_path / name))


def test_importing_the_benchmark_draws_nothing_in():
    code = "import json, sys, gptoss_triton.bench.command; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "transformers"} & set(json.loads(done.stdout))
