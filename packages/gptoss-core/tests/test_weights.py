from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gptoss_core import parallel, weights
from gptoss_core.cache import RingCache
from gptoss_core.errors import ParallelError
from gptoss_core.experts import PackedWeight
from gptoss_core.model import Experts, Transformer
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import CheckpointError, OutOfMemory
from gptoss_harmony.layout import LAYOUTS, Layout
from gptoss_harmony.random_checkpoint import random_checkpoint

TOKENS = torch.randint(0, 512, (40,), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits_of(model: Transformer) -> Tensor:
    logits = model(TOKENS)
    assert isinstance(logits, Tensor)
    return logits


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("experts", ["packed", "dense"])
@pytest.mark.parametrize("shard_bytes", [None, 60_000])
def test_every_layout_gives_the_same_model(
    tmp_path: Path,
    tiny: ModelConfig,
    tiny_model: Transformer,
    layout: Layout,
    experts: Experts,
    shard_bytes: int | None,
) -> None:
    folder = tmp_path / "model"
    random_checkpoint(folder, tiny, seed=1, layout=layout, max_shard_bytes=shard_bytes)
    model = Transformer.from_checkpoint(folder, dtype=torch.float32, experts=experts)
    assert torch.equal(logits_of(model), logits_of(tiny_model))
    assert isinstance(model.get_submodule("block.0.mlp").mlp1_weight, PackedWeight) == (
        experts == "packed"
    )
    assert all(p.requires_grad == (experts == "dense") for p in model.parameters())


def test_dtypes(tiny_folder: Path) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        model = Transformer.from_checkpoint(tiny_folder, dtype=dtype, experts="dense")
        for name, parameter in model.named_parameters():
            wanted = torch.float32 if name.endswith("norm.scale") else dtype
            assert parameter.dtype == wanted, name


def test_packed_weights_on_a_cpu_are_the_mapped_file(tiny_folder: Path) -> None:
    """Nothing is copied: their memory lies in mappings of the file."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux lists its mappings")
    model = Transformer.from_checkpoint(tiny_folder)
    ranges = []
    for line in maps.read_text().splitlines():
        if str(tiny_folder) in line:
            start, stop = (int(edge, 16) for edge in line.split()[0].split("-"))
            ranges.append(range(start, stop))
    for layer in model.block:
        for weight in (layer.mlp.mlp1_weight, layer.mlp.mlp2_weight, layer.attn.qkv.weight):
            tensor = weight.blocks if isinstance(weight, PackedWeight) else weight
            assert any(tensor.data_ptr() in span for span in ranges)


@pytest.mark.parametrize("experts", ["packed", "dense"])
def test_saved_equals_loaded(tmp_path: Path, tiny_folder: Path, experts: Experts) -> None:
    model = Transformer.from_checkpoint(tiny_folder, dtype=torch.float32, experts=experts)
    weights.save(model, tmp_path / "saved")
    again = Transformer.from_checkpoint(tmp_path / "saved", dtype=torch.float32)
    assert torch.equal(logits_of(model), logits_of(again))
    if experts == "packed":
        for name in ("config.json", "model.safetensors"):
            assert (tmp_path / "saved" / name).read_bytes() == (tiny_folder / name).read_bytes()


def test_saving_rounds_trained_weights_to_mxfp4(tmp_path: Path, tiny: ModelConfig) -> None:
    torch.manual_seed(0)
    model = Transformer(replace(tiny, num_hidden_layers=1), dtype=torch.float32)
    weights.save(model, tmp_path / "saved")
    again = Transformer.from_checkpoint(tmp_path / "saved", dtype=torch.float32, experts="dense")
    before = model.get_parameter("block.0.mlp.mlp1_weight")
    after = again.get_parameter("block.0.mlp.mlp1_weight")
    error = float(((before - after).norm() / before.norm()).detach())
    assert 0.01 < error < 0.15  # four bits
    weights.save(again, tmp_path / "twice")
    assert (tmp_path / "twice" / "model.safetensors").read_bytes() == (
        tmp_path / "saved" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("layout", ["original", "hf-mxfp4"])
@pytest.mark.parametrize("experts", ["packed", "dense"])
def test_a_nan_scale_is_named(
    tmp_path: Path, tiny: ModelConfig, layout: Layout, experts: Experts
) -> None:
    folder = random_checkpoint(tmp_path / "model", tiny, layout=layout)
    name = "block.1.mlp.mlp2_weight.scales"
    (part,) = Checkpoint.open(folder).tensors[name].parts
    with part.path.open("r+b") as file:
        file.seek(part.stop - 1)
        file.write(b"\xff")
    with pytest.raises(CheckpointError, match=rf"{name}: the scale at \[4, 63, 2\] is 255"):
        Transformer.from_checkpoint(folder, experts=experts)


def test_too_little_memory_is_said_before_anything_is_read(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(weights, "free_bytes", lambda device: weights.WORKING_BYTES + 1000)
    monkeypatch.setattr(weights, "map_part", refuse)
    with pytest.raises(OutOfMemory, match=r"needs 0\.3 GB on cpu and 0\.3 GB are free: close"):
        Transformer.from_checkpoint(tiny_folder)
    with pytest.raises(OutOfMemory, match="take packed experts"):
        Transformer.from_checkpoint(tiny_folder, experts="dense")


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        Transformer.from_checkpoint(tmp_path)


def test_save_refuses_what_it_cannot_write(
    tmp_path: Path, tiny: ModelConfig, tiny_model: Transformer
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(CheckpointError, match="not empty"):
        weights.save(tiny_model, tmp_path / "taken")
    model = Transformer(replace(tiny, num_hidden_layers=1), dtype=torch.float32)
    with torch.no_grad():
        model.get_parameter("block.0.mlp.mlp2_weight")[3, 2, 1] = torch.nan
    with pytest.raises(CheckpointError, match="finite"):
        weights.save(model, tmp_path / "nan")
    assert not (tmp_path / "nan").exists()
    share: Callable[[ModelConfig], parallel.Plan] = lambda config: parallel.Plan.share(  # noqa: E731
        config, rank=0, size=2, reduce=lambda x: x
    )
    part = Transformer(tiny, plan=share(tiny))
    with pytest.raises(ParallelError, match="one of 2 shares"):
        weights.save(part, tmp_path / "part")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("experts", ["packed", "dense"])
def test_a_gpu_gets_the_same_bytes(
    tmp_path: Path, tiny: ModelConfig, layout: Layout, experts: Experts
) -> None:
    folder = random_checkpoint(tmp_path / "model", tiny, layout=layout)
    host = Transformer.from_checkpoint(folder, experts=experts)
    device = Transformer.from_checkpoint(folder, device="cuda", experts=experts)
    for name, tensor in host.state_dict().items():
        assert torch.equal(device.state_dict()[name].cpu(), tensor), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@torch.no_grad()
def test_a_gpu_gives_the_same_logits(tiny_folder: Path, tiny_model: Transformer) -> None:
    model = Transformer.from_checkpoint(tiny_folder, device="cuda", dtype=torch.float32)
    cache = RingCache(model.config)
    pieces = torch.split(TOKENS.cuda(), [30, 1, 9])
    logits = torch.cat([model(piece, cache=cache) for piece in pieces]).cpu()
    expected = logits_of(tiny_model)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
