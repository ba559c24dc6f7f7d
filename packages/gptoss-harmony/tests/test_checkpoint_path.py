from pathlib import Path

import pytest

from gptoss_harmony import nano
from gptoss_harmony.checkpoint_path import hub_cache, resolve_checkpoint
from gptoss_harmony.errors import CheckpointError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub"


def weights(folder):
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    return folder


def test_the_cache_is_where_hugging_face_puts_it(monkeypatch, cache):
    assert hub_cache() == cache
    monkeypatch.setenv("HF_HUB_CACHE", "/elsewhere")
    assert hub_cache() == Path("/elsewhere")
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert hub_cache() == Path("/xdg/huggingface/hub")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert hub_cache() == Path.home() / ".cache/huggingface/hub"


@pytest.mark.parametrize("name", ["gpt-oss-20b", "openai/gpt-oss-20b"])
def test_hub_ids_lead_to_the_snapshot_of_main(cache, name):
    model = cache / "models--openai--gpt-oss-20b"
    weights(model / "snapshots" / "old" / "original")
    new = weights(model / "snapshots" / "new" / "original")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("new")
    assert resolve_checkpoint(name) == new


def test_without_a_reference_the_only_snapshot_is_taken(cache):
    folder = weights(cache / "models--some--model" / "snapshots" / "abc")
    assert resolve_checkpoint("some/model") == folder


def test_a_folder_wins_over_a_hub_id(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint(weights(Path("openai/gpt-oss-20b"))) == Path("openai/gpt-oss-20b")


def test_what_is_not_downloaded_comes_with_the_line_that_does_it(cache):
    with pytest.raises(CheckpointError, match="run `gptoss download gpt-oss-120b`"):
        resolve_checkpoint("gpt-oss-120b")
    with pytest.raises(CheckpointError, match="run `hf download some/model`"):
        resolve_checkpoint("some/model")
    (cache / "models--openai--gpt-oss-20b" / "snapshots" / "abc").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="only in part: run `gptoss download gpt-oss-20b`"):
        resolve_checkpoint("gpt-oss-20b")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.bin", "engine metal"),
        ("metal/model.bin", "engine metal"),
        ("weights.gguf", "GGUF"),
        ("config.json", "cut short"),
        ("notes.txt", "so it is no checkpoint"),
    ],
)
def test_wrong_folders_are_recognised_by_what_they_hold(tmp_path, file, message):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(CheckpointError, match=message):
        resolve_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("file", "message"),
    [("model.bin", "metal"), ("model.safetensors", "give its folder"), ("x", "is a file")],
)
def test_files_in_place_of_folders(tmp_path, file, message):
    (tmp_path / file).touch()
    with pytest.raises(CheckpointError, match=message):
        resolve_checkpoint(tmp_path / file)


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve_checkpoint(tmp_path / "a" / "b")


def test_a_path_that_the_system_refuses():
    with pytest.raises(CheckpointError, match="cannot be read: File name too long"):
        resolve_checkpoint("x" * 5000)


def test_nano_is_unpacked(monkeypatch, tmp_path):
    monkeypatch.setattr(nano, "unpack", lambda: tmp_path)
    assert resolve_checkpoint("nano") == tmp_path
