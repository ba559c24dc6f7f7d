"""Folders for vLLM: which are made, what is in them, and that their tokenizer is ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_harmony import Checkpoint, load_encoding
from gptoss_harmony.convert import convert_checkpoint
from gptoss_harmony.errors import CheckpointError
from gptoss_serve.engines.hugging_face_folder import hugging_face_folder
from gptoss_serve.engines.hugging_face_tokenizer import merges

MADE = {"config.json", "generation_config.json", "model.safetensors"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def nano() -> Path:
    """nano as vLLM would load it, in the user's cache."""
    return hugging_face_folder("nano", experts="mxfp4")


@pytest.mark.slow
def test_an_original_folder_is_converted_once(nano: Path) -> None:
    assert {file.name for file in nano.iterdir()} == MADE | TOKENIZER
    assert Checkpoint.open(nano).layout == "hf-mxfp4"
    made = (nano / "tokenizer.json").stat().st_mtime_ns
    assert hugging_face_folder("nano", experts="mxfp4") == nano
    assert (nano / "tokenizer.json").stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_complete_folder_is_taken_as_it_is(nano: Path, tmp_path: Path) -> None:
    assert hugging_face_folder(str(nano), experts="mxfp4", cache=tmp_path) == nano
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_folder_without_tokenizer_is_left_alone(nano: Path, tmp_path: Path) -> None:
    source = tmp_path / "mine"
    convert_checkpoint(Checkpoint.open("nano"), source, layout="hf-mxfp4")
    made = hugging_face_folder(str(source), experts="mxfp4", cache=tmp_path / "cache")
    assert {file.name for file in source.iterdir()} == MADE
    assert {file.name for file in made.iterdir()} == MADE | TOKENIZER
    assert (made / "model.safetensors").resolve() == source / "model.safetensors"
    assert hugging_face_folder(str(source), experts="mxfp4", cache=tmp_path / "cache") == made


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="XDG_CACHE_HOME"):
        hugging_face_folder("nano", experts="mxfp4", cache=tmp_path / "file")


def test_merges_come_in_the_order_of_what_they_make() -> None:
    assert merges(["a", "b", "c", "ab", "bc", "abc"]) == [
        ("a", "b"),
        ("b", "c"),
        ("a", "bc"),
        ("ab", "c"),
    ]


@pytest.mark.slow
def test_the_tokenizer_is_ours(nano: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(nano / "tokenizer.json"))
    ours = load_encoding()
    assert theirs.get_vocab_size() == 201_088
    marked = "<|start|>user<|message|>Hello<|end|>"
    assert theirs.encode(marked).ids == ours.encode(marked, allowed_special="all")

    @settings(max_examples=150, deadline=None)
    @given(st.text(max_size=80) | st.text(" \t\nabcABC'st123{}\"é", max_size=80))
    def same(text: str) -> None:
        if "<|" not in text:
            ids = theirs.encode(text).ids
            assert ids == ours.encode_text(text)
            assert theirs.decode(ids) == text

    same()
