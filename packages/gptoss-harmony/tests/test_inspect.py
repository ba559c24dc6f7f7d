import json

import numpy as np
import pytest

from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.checkpoint_writer import write_checkpoint
from gptoss_harmony.cli import main
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config

CONFIG = tiny_config(vocab_size=320)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("inspect") / "hf"
    return random_checkpoint(target, CONFIG, layout="hf-mxfp4", max_shard_bytes=200_000)


def test_json_says_what_is_there(folder, capsys):
    assert main(["inspect", str(folder), "--json", "--scan"]) == 0
    report = json.loads(capsys.readouterr().out)
    checkpoint = Checkpoint.open(folder)
    assert report["layout"] == "hf-mxfp4"
    assert report["bytes"] == sum(report["bytes_by_kind"].values()) == checkpoint.nbytes
    assert report["files"] == {path.name: path.stat().st_size for path in checkpoint.files}
    assert report["config"]["num_experts"] == 5
    assert report["memory"]["weights_packed"] == checkpoint.nbytes
    assert report["memory"]["weights_dense"] > checkpoint.nbytes
    cache = report["memory"]["cache"]["131072"]
    assert cache["all_positions"] == 2 * 131_072 * 2 * 3 * 64 * 2
    assert cache["windows_as_rings"] == (131_072 + 128) * 2 * 3 * 64 * 2
    assert report["problems"] == []


def test_text_has_the_same_for_people(folder, capsys):
    (folder / "stray.safetensors").touch()
    assert main(["inspect", str(folder)]) == 0
    (folder / "stray.safetensors").unlink()
    text = capsys.readouterr().out
    for part in ("hf-mxfp4, 33 tensors", "5 experts (2 chosen)", "131,072", "stray.safetensors"):
        assert part in text


def test_scan_finds_nan_in_scales_and_weights(tmp_path, capsys):
    source = Checkpoint.open(random_checkpoint(tmp_path / "good", CONFIG))

    def tensors():
        for name in source.tensors:
            array = np.array(source.read(name))
            if name == "block.0.mlp.mlp1_weight.scales":
                array[1, 2, 1] = 255
            if name == "unembedding.weight":
                array[300, 5] = 0x7FC0
            yield name, array

    bad = write_checkpoint(tmp_path / "bad", CONFIG, tensors())
    assert main(["inspect", str(bad)]) == 0
    assert main(["inspect", str(bad), "--scan"]) == 1
    text = capsys.readouterr().out
    assert "block.0.mlp.mlp1_weight.scales: the scale at [1, 2, 1] is 255" in text
    assert "unembedding.weight: 1 of 20480 values are NaN or infinite" in text


def test_a_wrong_folder_is_one_sentence(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "so it is no checkpoint" in error
    assert "Traceback" not in error
