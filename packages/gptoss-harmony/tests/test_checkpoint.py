import json
import shutil

import numpy as np
import pytest

from gptoss_harmony import bfloat16, mxfp4
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.layout import LAYOUTS, tensor_specs
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config
from gptoss_harmony.safetensors_header import build_header, read_header

CONFIG = tiny_config(vocab_size=320)
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same random weights in every layout, Hugging Face's in several shards."""
    root = tmp_path_factory.mktemp("checkpoints")
    for layout in LAYOUTS:
        limit = None if layout == "original" else 60_000
        random_checkpoint(root / layout, CONFIG, seed=5, layout=layout, max_shard_bytes=limit)
    return root


@pytest.fixture
def copy(folders, tmp_path):
    """A copy of one layout that a test may damage."""
    return lambda layout: shutil.copytree(folders / layout, tmp_path / layout)


def rewrite(path, change):
    """Rewrite a safetensors file from its {name: (dtype, shape)} after `change`."""
    header = {e.name: (e.dtype, e.shape) for e in read_header(path).values()}
    change(header)
    prefix, entries = build_header((name, *rest) for name, rest in header.items())
    path.write_bytes(prefix + bytes(entries[-1].stop - len(prefix)))


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_told_apart_and_described_alike(folders, layout):
    checkpoint = Checkpoint.open(folders / layout)
    assert checkpoint.layout == layout
    assert checkpoint.config == CONFIG
    assert checkpoint.path == folders / layout
    assert list(checkpoint.tensors) == [spec.name for spec in tensor_specs(CONFIG, layout)]
    assert checkpoint.nbytes == sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    assert (len(checkpoint.files) > 2) is (layout != "original")
    for name, tensor in checkpoint.tensors.items():
        array = checkpoint.read(name)
        assert array.shape == tensor.shape
        assert array.dtype == (np.uint8 if tensor.dtype == "U8" else np.uint16)
        assert array.nbytes == tensor.nbytes


def test_parts_are_the_bytes_of_the_tensor(folders):
    checkpoint = Checkpoint.open(folders / "hf-mxfp4")
    tensor = checkpoint.tensors["block.1.attn.qkv.weight"]
    assert [part.shape for part in tensor.parts] == [(384, 64), (192, 64), (192, 64)]
    data = b"".join(part.path.read_bytes()[part.start : part.stop] for part in tensor.parts)
    assert data == checkpoint.read(tensor.name).tobytes()


def test_all_layouts_hold_the_same_weights(folders):
    original, packed, expanded = (Checkpoint.open(folders / layout) for layout in LAYOUTS)
    for name in original.tensors:
        assert np.array_equal(original.read(name), packed.read(name)), name
        if name in expanded.tensors:
            assert np.array_equal(original.read(name), expanded.read(name)), name
    name = "block.1.mlp.mlp1_weight"
    values = mxfp4.unpack(original.read(f"{name}.blocks"), original.read(f"{name}.scales"))
    assert np.array_equal(bfloat16.to_float32(expanded.read(name)), values)
    assert expanded.tensors[name].parts[0].transposed


def test_whole_tensors_are_maps_of_the_file(folders):
    checkpoint = Checkpoint.open(folders / "hf-bf16")
    for name in ("embedding.weight", "block.0.mlp.mlp1_weight"):
        array = checkpoint.read(name)
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_a_folder_that_contains_original_is_fine(folders, tmp_path):
    shutil.copytree(folders / "original", tmp_path / "download" / "original")
    assert Checkpoint.open(tmp_path / "download").path == tmp_path / "download" / "original"
    both = shutil.copytree(folders / "hf-mxfp4", tmp_path / "both")
    shutil.copytree(folders / "original", both / "original")
    assert Checkpoint.open(both).layout == "hf-mxfp4"
    assert Checkpoint.open(both / "original").layout == "original"


def test_missing_unexpected_and_misshaped_come_in_one_message(copy):
    folder = copy("original")

    def damage(header):
        del header["block.0.attn.sinks"], header["norm.scale"]
        header["block.9.attn.sinks"] = ("BF16", (6,))
        header["block.1.mlp.gate.bias"] = ("F32", (5,))
        header["block.1.attn.out.weight"] = ("BF16", (384, 64))

    rewrite(folder / "model.safetensors", damage)
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(folder)
    message = str(error.value)
    assert "2 tensors are missing: block.0.attn.sinks, norm.scale" in message
    assert "1 are unexpected: block.9.attn.sinks" in message
    assert "block.1.mlp.gate.bias is F32 [5] and should be BF16 [5]" in message
    assert "block.1.attn.out.weight is BF16 [384, 64] and should be BF16 [64, 384]" in message


def test_the_config_of_another_model_is_noticed(copy):
    folder = copy("original")
    edit_json(folder / "config.json", lambda config: config.update(num_experts=7))
    with pytest.raises(CheckpointError, match=r"mlp1_bias is BF16 \[5, 192\] and should be .*\[7,"):
        Checkpoint.open(folder)


def test_long_lists_are_cut(copy):
    folder = copy("original")
    edit_json(folder / "config.json", lambda config: config.update(num_hidden_layers=40))
    with pytest.raises(CheckpointError, match=r"570 tensors are missing: .* and 550 more"):
        Checkpoint.open(folder)


def test_a_missing_shard_is_named(copy):
    folder = copy("hf-mxfp4")
    lost = sorted(folder.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=rf"1 of \d+ shards are missing: {lost.name}.*again"):
        Checkpoint.open(folder)


def test_an_index_without_any_shard(copy, folders):
    folder = copy("hf-mxfp4")
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    with pytest.raises(CheckpointError, match=r"(\d+) of \1 shards are missing"):
        Checkpoint.open(folder)
    shutil.copytree(folders / "original", folder / "original")
    assert Checkpoint.open(folder).layout == "original"


def test_shards_without_an_index_are_read(copy):
    folder = copy("hf-mxfp4")
    (folder / INDEX).unlink()
    assert Checkpoint.open(folder).layout == "hf-mxfp4"
    sorted(folder.glob("*.safetensors"))[0].unlink()
    with pytest.raises(CheckpointError, match=r"tensors are missing: model.embed_tokens.weight"):
        Checkpoint.open(folder)


def test_a_file_outside_the_index_is_ignored_and_noted(copy):
    folder = copy("hf-mxfp4")
    shutil.copy(sorted(folder.glob("*.safetensors"))[0], folder / "stray.safetensors")
    (note,) = Checkpoint.open(folder).notes
    assert "stray.safetensors" in note


def test_an_index_that_disagrees_with_the_headers_is_refused(copy):
    folder = copy("hf-mxfp4")
    edit_json(
        folder / INDEX,
        lambda index: index["weight_map"].update(
            {"lm_head.weight": "model-00001-of-00002.safetensors", "ghost": "x.safetensors"}
        ),
    )
    with pytest.raises(CheckpointError, match="shards are missing"):
        Checkpoint.open(folder)
    first = sorted(folder.glob("*.safetensors"))[0].name
    edit_json(
        folder / INDEX,
        lambda index: index["weight_map"].update({"lm_head.weight": first, "ghost": first}),
    )
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(folder)
    assert "has ghost in" in str(error.value)
    assert "has lm_head.weight in" in str(error.value)


def test_a_truncated_file_is_said_to_be_one(copy):
    folder = copy("original")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model.safetensors is cut short: \d+ bytes of \d+"):
        Checkpoint.open(folder)


def test_every_truncated_shard_is_named(copy):
    folder = copy("hf-bf16")
    shards = sorted(folder.glob("*.safetensors"))[:2]
    for shard in shards:
        shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(folder)
    assert all(f"{shard.name} is cut short" in str(error.value) for shard in shards)


def test_a_config_beside_the_wrong_weights_is_noticed(copy, folders):
    folder = copy("original")
    shutil.copy(folders / "hf-mxfp4" / "config.json", folder / "config.json")
    with pytest.raises(CheckpointError, match=r"put the original/ config.json beside"):
        Checkpoint.open(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Checkpoint.open(folder)


def test_a_tensor_in_two_shards_is_refused(copy):
    folder = copy("hf-mxfp4")
    (folder / INDEX).unlink()
    shutil.copy(sorted(folder.glob("*.safetensors"))[0], folder / "z.safetensors")
    with pytest.raises(CheckpointError, match=r"model.embed_tokens.weight is both in .* and z"):
        Checkpoint.open(folder)


def test_reading_names_what_is_not_there_and_what_vanished(copy):
    folder = copy("original")
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(CheckpointError, match=r"no tensor .block\.0\.nothing"):
        checkpoint.read("block.0.nothing")
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="changed since it was opened"):
        checkpoint.read("norm.scale")


def test_expanded_experts_under_packed_names_are_read(copy, folders):
    folder = copy("hf-bf16")
    (folder / INDEX).unlink()
    for path in folder.glob("*.safetensors"):
        content = path.read_bytes()
        header = {e.name: (e.dtype, e.shape) for e in read_header(path).values()}
        data = content[8 + int.from_bytes(content[:8], "little") :]
        prefix, _ = build_header(
            (f"{name}_blocks" if name.endswith("_proj") else name, *rest)
            for name, rest in header.items()
        )
        path.write_bytes(prefix + data)
    checkpoint, plain = Checkpoint.open(folder), Checkpoint.open(folders / "hf-bf16")
    assert checkpoint.layout == "hf-bf16"
    assert "Transformers 5" in checkpoint.notes[0]
    for name in plain.tensors:
        assert np.array_equal(checkpoint.read(name), plain.read(name))
