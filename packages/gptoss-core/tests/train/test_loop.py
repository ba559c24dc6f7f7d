from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptoss_core.model import Transformer
from gptoss_core.train.assemble import Paths, Run, assemble
from gptoss_core.train.loop import Loop
from gptoss_core.train.packing import Packer
from gptoss_core.train.saving import load_state
from gptoss_core.train.settings import Settings
from gptoss_core.train.sources import open_documents
from gptoss_harmony.errors import UsageError

BASE: dict[str, Any] = {
    "steps": 30,
    "tokens_per_step": 256,
    "context": 64,
    "learning_rate": 1e-2,
    "dtype": "float32",
    "device": "cpu",
    "log_every": 1,
    "balance": 0.0,
    "held_out": 0.1,
}


def make(shard: Path, out: Path, **values: Any) -> tuple[Paths, Settings]:
    checkpoint = values.pop("checkpoint", None)
    init = None if checkpoint else shard.with_name("config.json")
    paths = Paths(data=shard, out=out, init=init, checkpoint=checkpoint)
    return paths, Settings.from_mapping({**BASE, **values})


def train(shard: Path, out: Path, **values: Any) -> Run:
    paths, settings = make(shard, out, **values)
    run = assemble(paths, settings)
    Loop(run, out).train()
    return run


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture
def data(shard: Path, config_file: Path) -> Path:
    assert config_file.parent == shard.parent
    return shard


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_loss_falls(data: Path, tmp_path: Path, optimizer: str) -> None:
    train(data, tmp_path / "out", optimizer=optimizer)
    history = losses(tmp_path / "out")
    assert len(history) == 30
    assert np.mean(history[-5:]) < 0.8 * history[0]


def test_resumed_run_equals_an_uninterrupted_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(data, tmp_path / "whole", steps=8, optimizer="muon", quantize_from=0.5)
    paths, settings = make(data, tmp_path / "half", steps=8, optimizer="muon", quantize_from=0.5)
    first = assemble(paths, replace(settings, max_seconds=1e-9))  # stops after one step
    Loop(first, paths.out).train()
    assert first.trainer.done == 1
    second = assemble(paths, settings)
    Loop(second, paths.out, resume=True).train()
    for name, weight in whole.trainer.parameters.trained.items():
        assert torch.equal(weight, second.trainer.parameters.trained[name]), name


def test_saved_checkpoint_is_the_trained_model(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "out", steps=5)
    model = Transformer.from_checkpoint(
        tmp_path / "out" / "original", dtype=torch.float32, experts="dense"
    )
    for name, weight in run.trainer.parameters.full(quantised=True):
        assert torch.equal(model.get_parameter(name), weight.bfloat16().float()), name
    held = next(iter(run.held.packer.all_rows()))
    document = held.tokens[0, held.document[0] == 0]
    logits = model(torch.from_numpy(document))
    weights = {n: w.bfloat16().float() for n, w in run.trainer.parameters.full(quantised=True)}
    states, _ = run.trainer.forward.hidden(
        weights, torch.from_numpy(document)[None], torch.zeros(1, len(document))
    )
    expected = states[0] @ weights["unembedding.weight"].T
    assert torch.allclose(logits, expected, atol=1e-4 * float(expected.detach().abs().max()))


def test_lora_on_a_checkpoint_lowers_its_loss_and_leaves_the_rest(
    data: Path, tmp_path: Path
) -> None:
    train(data, tmp_path / "base", steps=3)
    base = str(tmp_path / "base" / "original")
    out = tmp_path / "lora"
    train(
        data,
        out,
        checkpoint=base,
        lora_rank=4,
        lora_targets=["attention", "experts"],
        steps=20,
    )
    assert np.mean(losses(out)[-5:]) < losses(out)[0]
    before, after = (
        dict(Transformer.from_checkpoint(path, experts="dense").named_parameters())
        for path in (base, out / "original")
    )
    for name in before:
        touched = any(part in name for part in ("qkv.weight", "out.weight", "mlp1_w", "mlp2_w"))
        assert touched or torch.equal(before[name], after[name]), name


def test_a_folder_with_a_run_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "out", steps=1)
    with pytest.raises(UsageError, match="holds a run already: add --resume"):
        train(data, tmp_path / "out", steps=1)


def test_resuming_with_other_settings_is_refused(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "out", steps=2)
    paths, settings = make(data, tmp_path / "out", steps=2, learning_rate=1.0)
    with pytest.raises(UsageError, match=r"learning_rate 0.01 -> 1.0"):
        Loop(assemble(paths, settings), paths.out, resume=True)


def test_nothing_to_resume_is_said(data: Path, tmp_path: Path) -> None:
    paths, settings = make(data, tmp_path / "none")
    with pytest.raises(UsageError, match="no run to resume"):
        Loop(assemble(paths, settings), paths.out, resume=True)


def test_an_interrupt_saves_a_whole_step(data: Path, tmp_path: Path) -> None:
    paths, settings = make(data, tmp_path / "out", steps=6)
    run = assemble(paths, settings)

    def progress(done: int) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Loop(run, paths.out, progress=progress).train()
    assert load_state(paths.out / "state.pt", torch.device("cpu"))["step"] == 2
    resumed = assemble(paths, settings)
    Loop(resumed, paths.out, resume=True).train()
    whole = train(data, tmp_path / "whole", steps=6)
    for name, weight in whole.trainer.parameters.trained.items():
        assert torch.equal(weight, resumed.trainer.parameters.trained[name]), name


def test_a_loss_that_is_no_number_stops_the_run(data: Path, tmp_path: Path) -> None:
    paths, settings = make(data, tmp_path / "out", steps=3)
    run = assemble(paths, settings)
    with torch.no_grad():
        run.trainer.parameters.trained["norm.scale"].fill_(torch.nan)
    with pytest.raises(UsageError, match="the loss is nan; lower"):
        Loop(run, paths.out).train()
    assert not (paths.out / "state.pt").exists()


def test_documents_that_are_cut_are_counted(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "out", steps=6, context=16, tokens_per_step=128)
    lines = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    reports = [json.loads(line) for line in lines]
    assert any(report.get("documents_cut_at_context", 0) > 0 for report in reports)


def test_shards_are_taken_in_order_and_waited_for(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(2):
        (folder / f"train-{number}.npz").write_bytes(data.read_bytes())
    settings = Settings.from_mapping({**BASE, "shards": 2})
    documents = open_documents(folder, settings)
    assert documents.length == 80
    packer = Packer([lambda: documents], context=64, rows=4, seed=0)
    assert packer.batch(0).tokens.shape == (4, 64)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "does not exist"), ("config.json", "no assistant message|not a harmony")],
)
def test_bad_data_is_named(data: Path, name: str, message: str) -> None:
    paths, settings = make(data.with_name(name), data.with_name("out"))
    with pytest.raises(UsageError, match=message):
        assemble(replace(paths, init=data.with_name("config.json")), settings)


def test_both_or_no_start_is_refused(data: Path) -> None:
    paths, settings = make(data, data.with_name("out"))
    with pytest.raises(UsageError, match="either --init"):
        assemble(replace(paths, init=None), settings)
    with pytest.raises(UsageError, match="either --init"):
        assemble(replace(paths, checkpoint="nano"), settings)


def test_data_of_another_vocabulary_is_refused(
    data: Path, tmp_path: Path, config_file: Path
) -> None:
    small = json.loads(config_file.read_text()) | {"vocab_size": 40}
    config_file.write_text(json.dumps(small))
    paths, settings = make(data, tmp_path / "out")
    with pytest.raises(UsageError, match="different vocabularies"):
        assemble(paths, settings)
