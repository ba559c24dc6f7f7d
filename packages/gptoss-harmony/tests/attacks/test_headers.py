"""Headers and indexes that lie: each is refused with one sentence, quickly, in little memory."""

import json
import os
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config
from gptoss_harmony.safetensors_header import build_header, read_header

GOOD = {
    "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
    "b": {"dtype": "U8", "shape": [5], "data_offsets": [12, 17]},
}


def file_of(path, header, data=b"\0" * 17, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def changed(**fields):
    return GOOD | {"b": GOOD["b"] | fields}


def test_the_honest_header_is_read(tmp_path):
    path = file_of(tmp_path / "x", GOOD | {"__metadata__": {"format": "pt"}})
    entries = read_header(path)
    assert list(entries) == ["a", "b"]
    assert entries["a"].shape == (2, 3)
    assert entries["b"].stop == path.stat().st_size


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (changed(data_offsets=[11, 16]), "overlaps"),
        (changed(data_offsets=[0, 5]), "overlaps"),
        (changed(data_offsets=[13, 18]), "gap"),
        (changed(data_offsets=[12, 18]), "lies about 'b'"),
        (changed(data_offsets=[12, 16]), "lies about 'b'"),
        (changed(data_offsets=[17, 12]), r"not \[start, stop\]"),
        (changed(data_offsets=[-5, 0]), r"not \[start, stop\]"),
        (changed(data_offsets=[12.0, 17.0]), r"not \[start, stop\]"),
        (changed(data_offsets=[12, 14, 17]), r"not \[start, stop\]"),
        (changed(data_offsets=[False, True]), r"not \[start, stop\]"),
        (changed(data_offsets=None), r"not \[start, stop\]"),
        (changed(shape=[-5]), "not a list of sizes"),
        (changed(shape=[5.0]), "not a list of sizes"),
        (changed(shape="5"), "not a list of sizes"),
        (changed(shape=[1] * 1000), "not a list of sizes"),
        (changed(shape=[1 << 62, 1 << 62], data_offsets=[12, 12 + (1 << 124)]), "cut short"),
        (changed(shape=[10**9], data_offsets=[12, 12 + 10**9]), "cut short"),
        (changed(dtype="BF17"), "unknown type 'BF17'"),
        (changed(dtype=["U8"]), "unknown type"),
        (changed(extra=1), "must have dtype"),
        (GOOD | {"b": [1]}, "must have dtype"),
        ({"a": GOOD["a"]}, "5 bytes that its header does not know"),
        ([1, 2], "must be a JSON object"),
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a": 1, "a": 1}', "'a' appears twice"),
        (b'{"a": {"dtype": "U8", "dtype": "U8"}}', "'dtype' appears twice"),
    ],
)
def test_lies_are_refused(tmp_path, header, message):
    with pytest.raises(CheckpointError, match=message):
        read_header(file_of(tmp_path / "x", header))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut short"),
        (b"\x10\0\0", "cut short"),
        (struct.pack("<Q", 100) + b"{}", "cut short"),
        (struct.pack("<Q", (1 << 64) - 1) + b"{}", "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html>Not found</html>", "not a safetensors file"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_header(tmp_path / "x")


def test_a_huge_header_is_not_read(tmp_path):
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 1 << 30))
        file.truncate(2 << 30)  # sparse: takes no disk
    with pytest.raises(CheckpointError, match="header of 1073741824 bytes is refused"):
        read_header(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_header(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_header(tmp_path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """One folder for all examples of a property; each overwrites the file of the last."""
    return tmp_path_factory.mktemp("scratch")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pipe_does_not_block(tmp_path, name):
    folder = random_checkpoint(tmp_path / "checkpoint", tiny_config(vocab_size=320))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match="is a pipe"):
        Checkpoint.open(folder)


names = st.text(st.characters(codec="utf-8"), max_size=8)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
kinds = st.sampled_from(["U8", "BF16", "F32", "F64"])


@settings(max_examples=70, deadline=None)
@given(st.dictionaries(names.filter("__metadata__".__ne__), st.tuples(kinds, shapes), max_size=6))
def test_what_is_built_is_read_back(scratch, tensors):
    header, entries = build_header((name, *rest) for name, rest in tensors.items())
    path = scratch / "x"
    path.write_bytes(header + bytes(entries[-1].stop - len(header) if entries else 0))
    assert len(header) % 8 == 0
    found = read_header(path)
    assert {(e.name, e.dtype, e.shape) for e in found.values()} == {
        (name, *rest) for name, rest in tensors.items()
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
entry_like = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "BF16", "wat"]) | json_values,
        "shape": st.lists(st.integers(-1, 9), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 40), max_size=3) | json_values,
    }
)


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(names, entry_like | json_values, max_size=4), st.binary(max_size=40))
def test_random_headers_are_read_or_refused(scratch, header, data):
    path = scratch / "x"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    try:
        entries = read_header(path)
    except CheckpointError:
        return
    size = path.stat().st_size
    assert all(0 < e.start <= e.stop <= size for e in entries.values())


@settings(max_examples=70, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 220))
def test_random_bytes_are_read_or_refused(scratch, content, length):
    path = scratch / "x"
    path.write_bytes(struct.pack("<Q", length) + content)
    try:
        entries = read_header(path)
    except CheckpointError:
        return
    assert all(8 + length == e.start or e.start > 8 + length for e in entries.values())


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "hf"
    return random_checkpoint(folder, tiny_config(vocab_size=64), layout="hf-mxfp4")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_flipped_byte_of_a_header_is_survived(good, scratch, data):
    folder = scratch
    (folder / "config.json").write_bytes((good / "config.json").read_bytes())
    content = bytearray((good / "model.safetensors").read_bytes())
    header_stop = 8 + int.from_bytes(content[:8], "little")
    position = data.draw(st.integers(0, header_stop - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    (folder / "model.safetensors").write_bytes(content)
    try:
        checkpoint = Checkpoint.open(folder)
    except CheckpointError:
        return
    for tensor in checkpoint.tensors.values():
        assert all(header_stop <= part.start <= part.stop <= len(content) for part in tensor.parts)


@pytest.mark.parametrize(
    "target",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "sub/x.safetensors",
        "..\\x",
        "",
        ".",
        "a\0b",
        7,
        None,
    ],
)
def test_an_index_does_not_lead_out_of_its_folder(good, tmp_path, target):
    (tmp_path / "config.json").write_bytes((good / "config.json").read_bytes())
    index = {"weight_map": {"lm_head.weight": target}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"not in a file of this folder|shards are missing"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": {}}', b"\0", b'{"a":1,"a":2}']
)
def test_broken_indexes_and_configs(good, tmp_path, content):
    index = tmp_path / "model.safetensors.index.json"
    (tmp_path / "config.json").write_bytes((good / "config.json").read_bytes())
    index.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        Checkpoint.open(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint.open(tmp_path)
