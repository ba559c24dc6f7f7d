import errno
import json
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from gptoss_harmony import bfloat16, checkpoint_writer
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.checkpoint_writer import CheckpointWriter, write_checkpoint
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.layout import LAYOUTS, tensor_specs
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config

CONFIG = tiny_config(vocab_size=64)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "original"
    return Checkpoint.open(random_checkpoint(folder, CONFIG, seed=1))


def tensors(source):
    return [(name, source.read(name)) for name in source.tensors]


def leftovers(folder: Path):
    return [path.name for path in folder.iterdir()]


def test_written_equals_read_in_any_order(source, tmp_path):
    pieces = []
    for name, array in reversed(tensors(source)):
        pieces += [(name, array[:1]), (name, array[1:])] if len(array) > 1 else [(name, array)]
    folder = write_checkpoint(tmp_path / "new", CONFIG, pieces)
    original = source.path / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == original.read_bytes()
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 64
    assert leftovers(tmp_path) == ["new"]


def test_sharding_changes_no_value(source, tmp_path):
    sharded = write_checkpoint(tmp_path / "x", CONFIG, tensors(source), max_shard_bytes=100_000)
    checkpoint = Checkpoint.open(sharded)
    assert len(checkpoint.files) > 3
    assert all(path.stat().st_size < 105_000 for path in checkpoint.files)
    for name, array in tensors(source):
        assert np.array_equal(checkpoint.read(name), array)


def test_floats_are_rounded_to_bf16(source, tmp_path):
    def widened():
        for name, array in tensors(source):
            yield name, bfloat16.to_float32(array) if array.dtype == np.uint16 else array

    folder = write_checkpoint(tmp_path / "new", CONFIG, widened())
    again = (folder / "model.safetensors").read_bytes()
    assert again == (source.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((65, 64), np.uint16), "do not fit"),
        (np.zeros((2, 63), np.uint16), "do not fit"),
        (np.zeros((2, 64), np.int16), "uint16 bits or floats, not from int16"),
        (np.zeros((2, 64), np.uint8), "not from uint8"),
    ],
)
def test_rows_that_do_not_belong_are_refused_and_nothing_stays(tmp_path, rows, message):
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(tmp_path / "new", CONFIG, [("embedding.weight", rows)])
    assert leftovers(tmp_path) == []


def test_unknown_names_and_missing_rows_are_refused(source, tmp_path):
    with pytest.raises(CheckpointError, match="no tensor 'wat'"):
        write_checkpoint(tmp_path / "a", CONFIG, [("wat", np.zeros(1))])
    with pytest.raises(CheckpointError, match=r"1 tensors are incomplete: norm.scale \(10 of 64"):
        write_checkpoint(
            tmp_path / "b",
            CONFIG,
            [(n, a[:10] if n == "norm.scale" else a) for n, a in tensors(source)],
        )
    assert leftovers(tmp_path) == []


def test_an_interrupt_leaves_nothing(tmp_path):
    seen = []

    def interrupted():
        seen.extend(leftovers(tmp_path))
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "new", CONFIG, interrupted())
    assert len(seen) == 1
    assert seen[0].startswith(".new.partial-")
    assert leftovers(tmp_path) == []


def test_nothing_is_overwritten(source, tmp_path):
    (tmp_path / "kept.txt").touch()
    with pytest.raises(CheckpointError, match="not empty: nothing is overwritten"):
        write_checkpoint(tmp_path, CONFIG, tensors(source))
    with pytest.raises(CheckpointError, match="nothing is overwritten"):
        write_checkpoint(tmp_path / "kept.txt", CONFIG, tensors(source))
    (tmp_path / "empty").mkdir()
    assert Checkpoint.open(write_checkpoint(tmp_path / "empty", CONFIG, tensors(source)))


def test_a_disk_that_is_too_small_is_refused_first(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checkpoint_writer.shutil, "disk_usage", lambda _: usage(9, 9, 1000))
    with pytest.raises(CheckpointError, match=r"takes .* GB and the disk has 0.0 GB free"):
        write_checkpoint(tmp_path / "new", CONFIG, [])
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written")]
)
def test_a_failing_write_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, code, message):
    def fail(*_):
        raise OSError(code, "no")

    monkeypatch.setattr(CheckpointWriter, "_write_rows", fail)
    with pytest.raises(CheckpointError, match=message):
        random_checkpoint(tmp_path / "new", CONFIG)
    assert leftovers(tmp_path) == []


def test_a_path_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        random_checkpoint(tmp_path / "file" / "new", CONFIG)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_offsets_cover_the_file(tmp_path, layout):
    folder = random_checkpoint(tmp_path / layout, CONFIG, layout=layout)
    names = {entry for spec in tensor_specs(CONFIG, layout) for entry in spec.stored}
    assert len(Checkpoint.open(folder).files) == 1
    size = (folder / "model.safetensors").stat().st_size
    assert size > Checkpoint.open(folder).nbytes
    assert len(names) == len({stored.name for stored in names})


def test_the_generation_defaults_are_hugging_faces(tmp_path):
    config = tiny_config(hidden_size=32, num_hidden_layers=1)
    for layout in ("original", "hf-mxfp4"):
        folder = random_checkpoint(tmp_path / layout, config, layout=layout)
        assert (folder / "generation_config.json").exists() is (layout != "original")
    defaults = json.loads((tmp_path / "hf-mxfp4" / "generation_config.json").read_text())
    assert defaults["eos_token_id"] == [200_002, 199_999, 200_012]


def test_safetensors_reads_our_files(tmp_path):
    torch_loader = pytest.importorskip("safetensors.torch")
    torch = pytest.importorskip("torch")
    folder = random_checkpoint(tmp_path / "hf", CONFIG, layout="hf-mxfp4")
    theirs = torch_loader.load_file(folder / "model.safetensors")
    ours = Checkpoint.open(folder)
    blocks = theirs["model.layers.1.mlp.experts.down_proj_blocks"].numpy()
    assert np.array_equal(blocks, ours.read("block.1.mlp.mlp2_weight.blocks"))
    head = theirs["lm_head.weight"]
    assert head.dtype == torch.bfloat16
    values = bfloat16.to_float32(ours.read("unembedding.weight"))
    assert np.array_equal(head.float().numpy(), values)
