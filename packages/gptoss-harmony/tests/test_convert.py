import json

import numpy as np
import pytest

from gptoss_harmony import bfloat16, mxfp4
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.checkpoint_writer import write_checkpoint
from gptoss_harmony.cli import main
from gptoss_harmony.commands.convert import target_layout
from gptoss_harmony.convert import convert_checkpoint
from gptoss_harmony.errors import CheckpointError, UsageError
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config

CONFIG = tiny_config(vocab_size=320)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return Checkpoint.open(
        random_checkpoint(tmp_path_factory.mktemp("source") / "original", CONFIG, seed=3)
    )


def convert(source, folder, layout, **options):
    return Checkpoint.open(convert_checkpoint(source, folder, layout=layout, **options).folder)


def file_bytes(checkpoint):
    return (checkpoint.path / "model.safetensors").read_bytes()


def test_original_to_hugging_face_and_back_is_the_same_file(original, tmp_path):
    done = []
    hf = convert(original, tmp_path / "hf", "hf-mxfp4", max_shard_bytes=10**5, progress=done.append)
    assert sum(done) == original.nbytes == hf.nbytes
    assert hf.layout == "hf-mxfp4"
    assert len(hf.files) > 1
    back = convert(hf, tmp_path / "back", "original")
    assert file_bytes(back) == file_bytes(original)
    assert json.loads((back.path / "config.json").read_text()) == json.loads(
        (original.path / "config.json").read_text()
    )


def test_expanding_and_packing_again_keeps_every_number(original, tmp_path):
    dense = convert(original, tmp_path / "dense", "hf-bf16")
    conversion = convert_checkpoint(dense, tmp_path / "back", layout="original")
    assert conversion.rounded == 0
    assert conversion.values == 2 * 5 * 3 * 64 * 96
    back = Checkpoint.open(conversion.folder)
    for layer in range(2):
        for matrix in ("mlp1", "mlp2"):
            name = f"block.{layer}.mlp.{matrix}_weight"
            values = [
                mxfp4.unpack(c.read(f"{name}.blocks"), c.read(f"{name}.scales"))
                for c in (original, back)
            ]
            assert np.array_equal(*values)
            assert np.array_equal(bfloat16.to_float32(dense.read(name)), values[0])
    for name in original.tensors:
        if "_weight." not in name:
            assert np.array_equal(original.read(name), back.read(name))


def test_expanded_equals_a_random_expanded_checkpoint(original, tmp_path):
    dense = convert(original, tmp_path / "dense", "hf-bf16")
    other = random_checkpoint(tmp_path / "other", CONFIG, seed=3, layout="hf-bf16")
    assert file_bytes(dense) == (other / "model.safetensors").read_bytes()


def changed(source, folder, name, change, layout="original"):
    """A copy of a checkpoint in which one tensor differs."""

    def tensors():
        for key in source.tensors:
            array = np.array(source.read(key))
            if key == name:
                change(array)
            yield key, array

    return Checkpoint.open(write_checkpoint(folder, source.config, tensors(), layout=layout))


def test_rounding_is_counted(original, tmp_path):
    dense = convert(original, tmp_path / "dense", "hf-bf16")
    name = "block.0.mlp.mlp1_weight"

    def nudge(array):
        array[2, 5, 0] = bfloat16.from_float32(np.float32([0.1015625]))[0]
        array[2, 5, 1:32] = bfloat16.from_float32(np.float32([6]))[0]

    tuned = changed(dense, tmp_path / "tuned", name, nudge, layout="hf-bf16")
    conversion = convert_checkpoint(tuned, tmp_path / "packed", layout="hf-mxfp4")
    assert conversion.rounded == 1


@pytest.mark.parametrize("layout", ["hf-mxfp4", "hf-bf16"])
def test_a_nan_scale_is_found_and_nothing_stays(original, tmp_path, layout):
    name = "block.1.mlp.mlp2_weight.scales"

    def spoil(array):
        array[4, 7, 1] = 255

    spoiled = changed(original, tmp_path / "spoiled", name, spoil)
    with pytest.raises(CheckpointError, match=rf"{name}.*255, which is NaN"):
        convert_checkpoint(spoiled, tmp_path / "target", layout=layout)
    assert [path.name for path in tmp_path.iterdir()] == ["spoiled"]


def test_values_that_cannot_be_packed_are_named(original, tmp_path):
    dense = convert(original, tmp_path / "dense", "hf-bf16")
    name = "block.1.mlp.mlp1_weight"

    def spoil(array):
        array[3, 9, 11] = 0x7F80

    spoiled = changed(dense, tmp_path / "spoiled", name, spoil, layout="hf-bf16")
    with pytest.raises(CheckpointError, match=rf"{name}, expert 3: .* inf, found at \[9, 11\]"):
        convert_checkpoint(spoiled, tmp_path / "target", layout="original")


def test_the_tokenizer_comes_along(original, tmp_path):
    (original.path.parent / "tokenizer.json").write_text("{}")
    conversion = convert_checkpoint(original, tmp_path / "hf", layout="hf-mxfp4")
    (original.path.parent / "tokenizer.json").unlink()
    assert conversion.copied == ("tokenizer.json",)
    assert (tmp_path / "hf" / "tokenizer.json").read_text() == "{}"


def test_flags_choose_the_layout():
    assert target_layout("original", "hf", None) == "hf-mxfp4"
    assert target_layout("original", "hf", "bf16") == "hf-bf16"
    assert target_layout("hf-bf16", "hf", None) == "hf-bf16"
    assert target_layout("hf-bf16", "hf", "mxfp4") == "hf-mxfp4"
    assert target_layout("hf-bf16", "original", "mxfp4") == "original"
    with pytest.raises(UsageError, match="add --dtype mxfp4"):
        target_layout("hf-bf16", "original", None)
    with pytest.raises(UsageError, match="use --to hf"):
        target_layout("original", "original", "bf16")


def test_the_command_converts_and_reports(original, tmp_path, capsys):
    target = tmp_path / "hf"
    arguments = ["convert", str(original.path), str(target), "--to", "hf"]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["folder"] == str(target)
    assert result["layout"] == "hf-mxfp4"
    assert Checkpoint.open(target).nbytes == result["bytes"]
    assert main(arguments) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert main([*arguments[:2], str(tmp_path / "x"), "--to", "hf", "--shard-gb", "0"]) == 2
    assert main(["convert", str(target), str(tmp_path / "back"), "--to", "original"]) == 0
    assert "original, 0.00 GB" in capsys.readouterr().out
    assert file_bytes(Checkpoint.open(tmp_path / "back")) == file_bytes(original)
