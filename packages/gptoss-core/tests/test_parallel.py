from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gptoss_core import parallel
from gptoss_core.errors import ParallelError
from gptoss_core.model import Transformer
from gptoss_core.parallel import Plan
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config import ModelConfig, gpt_oss_20b
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config

# Runs under torchrun on device argv[1]: every model in argv[3:], its logits saved in argv[2].
SCRIPT = """
import sys
import torch
from gptoss_core import parallel
from gptoss_core.cache import RingCache
from gptoss_core.model import Transformer

torch.set_num_threads(1)
group = parallel.connect(sys.argv[1])
tokens = group.share_object(list(range(3, 173)) if group.rank == 0 else None)
tokens = torch.tensor(tokens, device=group.device)


def logits(folder, experts):
    model = Transformer.from_checkpoint(
        folder, device=group.device, dtype=torch.float32, experts=experts, plan=group.plan
    )
    cache = RingCache(model.config)
    first = model(tokens[:150], cache=cache)
    return torch.cat([first, model(tokens[150:], cache=cache)]).cpu()


try:
    with torch.no_grad():
        results = [logits(folder, form) for folder in sys.argv[3:] for form in ("packed", "dense")]
    token = group.share(torch.tensor([41 + group.rank], device=group.device))
    assert token.tolist() == [41], token
    if group.rank == 0:
        torch.save(results, sys.argv[2])
finally:
    group.close()
"""


def plans(config: ModelConfig, size: int) -> list[Plan]:
    return [Plan.share(config, rank=r, size=size, reduce=lambda x: x) for r in range(size)]


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_shards_are_whole_blocks_and_cover_everything(size: int) -> None:
    config = gpt_oss_20b()
    shares = plans(config, size)
    inner = [share.intermediate for share in shares]
    assert [i for share in inner for i in share] == list(range(2880))
    assert all(share.start % 32 == 0 and len(share) % 32 == 0 for share in inner)
    assert max(map(len, inner)) - min(map(len, inner)) <= 32
    heads = [h for share in shares for h in share.heads]
    assert heads == list(range(64)) if size != 3 else heads == list(range(64)) * 3
    for share in shares:  # each query head's kv head is on the same process
        assert {head // 8 for head in share.heads} == set(share.kv_heads)


def test_cuts_join_to_the_whole(tmp_path: Path) -> None:
    config = tiny_config(
        vocab_size=64, num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=4
    )
    checkpoint = Checkpoint.open(random_checkpoint(tmp_path / "m", config))
    shares = plans(config, 2)
    summed = {"out.bias", "mlp2_bias"}
    whole_everywhere = {"norm.scale", "gate.weight", "gate.bias"}
    for name in checkpoint.tensors:
        tensor = torch.from_numpy(checkpoint.read(name).astype("int32"))
        first, second = (share.cut(name, tensor) for share in shares)
        if name.endswith(tuple(summed)):
            assert torch.equal(first + second, tensor)
        elif not name.startswith("block.") or name.endswith(tuple(whole_everywhere)):
            assert torch.equal(first, tensor)
            assert torch.equal(second, tensor)
        else:
            assert first.numel() + second.numel() == tensor.numel(), name
            joined = torch.cat([first.flatten(), second.flatten()]).sort().values
            assert torch.equal(joined, tensor.flatten().sort().values), name


def test_qkv_rows_go_with_their_heads() -> None:
    config = tiny_config(num_attention_heads=8, num_key_value_heads=4, head_dim=2)
    rows = torch.arange(config.qkv_size)[:, None]
    second = plans(config, 2)[1].cut("block.0.attn.qkv.weight", rows).flatten().tolist()
    assert second == [*range(8, 16), *range(20, 24), *range(28, 32)]


def test_more_processes_than_blocks_are_refused() -> None:
    with pytest.raises(ParallelError, match="start at most 3"):
        plans(tiny_config(intermediate_size=96), 4)


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = parallel.connect("cpu")
    assert (group.rank, group.size, group.device.type) == (0, 1, "cpu")
    x = torch.ones(3)
    assert group.share(x) is x
    assert group.sum(x) is x
    assert group.share_object("prompt") == "prompt"
    group.close()


def test_a_device_without_communication_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ParallelError, match="not mps"):
        parallel.connect("mps")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "bound"),
    [
        ("cpu", 1e-5),
        pytest.param(
            *("cuda", 1e-4),
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs"),
            ],
        ),
    ],
)
def test_two_processes_equal_one(tmp_path: Path, device: str, bound: float) -> None:
    """torchrun: attention split (4 kv heads) and whole (3), 3 expert blocks over 2."""
    config = tiny_config(vocab_size=512, num_attention_heads=8, num_key_value_heads=4)
    folders = []
    for name, sizes in (
        ("split", config),
        ("whole", replace(config, num_attention_heads=6, num_key_value_heads=3)),
    ):
        folders.append(random_checkpoint(tmp_path / name, sizes, seed=5))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    source = str(Path(parallel.__file__).parents[1])
    search = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", str(script), device, str(tmp_path / "out.pt")),
            *map(str, folders),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": search},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr[-3000:]
    results = torch.load(tmp_path / "out.pt")
    tokens = torch.arange(3, 173)
    for folder, pair in zip(folders, (results[:2], results[2:]), strict=True):
        with torch.no_grad():
            expected = Transformer.from_checkpoint(folder, dtype=torch.float32)(tokens)
        for result in pair:
            atol = bound * float(expected.abs().max())
            torch.testing.assert_close(result, expected, rtol=0, atol=atol)
