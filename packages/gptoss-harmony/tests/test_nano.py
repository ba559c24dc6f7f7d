"""Unpacking nano: once, whole, always the same, and with a clear word when it cannot be done."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptoss_harmony import bfloat16, nano
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.config_files import original_config_json
from gptoss_harmony.errors import CheckpointError, NotInstalled
from gptoss_harmony.layout import tensor_specs
from gptoss_harmony.nano_rows import expand_rows
from gptoss_harmony.random_checkpoint import tiny_config
from gptoss_harmony.safetensors_header import build_header

KEPT = np.array([3, 16_383, 16_384, 19_999], np.int32)
TYPES = {np.uint16: "BF16", np.uint8: "U8", np.int8: "I8", np.int32: "I32"}


def small_config() -> ModelConfig:
    """Wide enough for two codes of 96 signs side by side, tall enough for two chunks of rows."""
    return tiny_config(hidden_size=192, vocab_size=20_000)


def packed_tensors() -> dict[str, np.ndarray]:
    """What a packed file of a tiny model holds."""
    config, rng = small_config(), np.random.default_rng(5)
    about = nano.describe(original_config_json(config), code_size=96, exponents=(0, -3))
    arrays: dict[str, np.ndarray] = {"nano.json": np.frombuffer(about, np.uint8), "rows": KEPT}
    for table in nano.TABLES:
        arrays[f"{table}.rows"] = rng.integers(-127, 128, (len(KEPT), config.hidden_size), np.int8)
        arrays[f"{table}.exponents"] = rng.integers(-9, 3, len(KEPT), np.int8)
    for spec in tensor_specs(config, "original"):
        if spec.name.removesuffix(".weight") not in nano.TABLES:
            bf16 = spec.dtype == "BF16"
            kind: Any = np.uint16 if bf16 else np.uint8
            arrays[spec.name] = rng.integers(100, 140, spec.shape, kind)
    return arrays


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    header, _ = build_header((n, TYPES[a.dtype.type], a.shape) for n, a in arrays.items())
    path.write_bytes(header + b"".join(a.tobytes() for a in arrays.values()))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package gptoss_nano with a tiny model in it, first on the path."""
    package = tmp_path / "site" / "gptoss_nano"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    write(package / "nano.safetensors", packed_tensors())
    monkeypatch.delitem(sys.modules, "gptoss_nano", raising=False)
    monkeypatch.syspath_prepend(str(package.parent))
    return package / "nano.safetensors"


def test_nano_opens_like_any_checkpoint(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checkpoint = Checkpoint.open("nano")
    assert checkpoint.path.parent == tmp_path / "cache" / "gptoss"
    assert checkpoint.layout == "original"
    assert checkpoint.config == small_config()
    arrays = packed_tensors()
    for name in checkpoint.tensors:
        if name in arrays:
            assert (checkpoint.read(name) == arrays[name]).all()


def test_learned_rows_are_read_and_the_others_all_differ(installed: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(nano.unpack(tmp_path / "cache"))
    arrays = packed_tensors()
    for table in nano.TABLES:
        rows = checkpoint.read(f"{table}.weight")
        learned = expand_rows(arrays[f"{table}.rows"], arrays[f"{table}.exponents"])
        assert (bfloat16.to_float32(rows[KEPT]) == learned).all()
        assert len(np.unique(rows.view(f"V{rows.shape[1] * 2}"))) == len(rows)


def test_unpacking_again_changes_nothing(installed: Path, tmp_path: Path) -> None:
    first = nano.unpack(tmp_path / "a")
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert nano.unpack(tmp_path / "a") == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    second = nano.unpack(tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_another_artefact_gets_another_folder(installed: Path, tmp_path: Path) -> None:
    first = nano.unpack(tmp_path)
    arrays = packed_tensors()
    arrays["embedding.exponents"] = arrays["embedding.exponents"] + np.int8(1)
    write(installed, arrays)
    second = nano.unpack(tmp_path)
    assert first != second
    assert nano.is_complete(first)
    assert nano.is_complete(second)


def _unpack_at_once(packed: Path, target: Path, start: Any) -> None:
    start.wait()
    nano.unpack_file(packed, target)


def test_processes_may_unpack_at_once(installed: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    start = context.Event()
    workers = [
        context.Process(target=_unpack_at_once, args=(installed, tmp_path / "nano", start))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    nano.unpack_file(installed, tmp_path / "alone")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "nano" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"site", "nano", "alone"}


def test_without_the_package_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match="pip install gptoss-nano"):
        nano.unpack()


def test_a_cache_that_cannot_be_written(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot be unpacked.*set XDG_CACHE_HOME"):
        nano.unpack(tmp_path / "file" / "cache")


def _cut(arrays: dict[str, np.ndarray], path: Path) -> None:
    write(path, arrays)
    path.write_bytes(path.read_bytes()[:-1])


def _older(arrays: dict[str, np.ndarray], path: Path) -> None:
    text = arrays["nano.json"].tobytes().replace(b"gptoss-nano-1", b"gptoss-nano-0")
    write(path, arrays | {"nano.json": np.frombuffer(text, np.uint8)})


def _nameless(arrays: dict[str, np.ndarray], path: Path) -> None:
    write(path, {name: array for name, array in arrays.items() if name != "nano.json"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [(_cut, "cut short"), (_older, "pip install --upgrade"), (_nameless, "not a packed nano")],
)
def test_a_damaged_file_is_named(
    damage: Callable[[dict[str, np.ndarray], Path], None],
    message: str,
    installed: Path,
    tmp_path: Path,
) -> None:
    damage(packed_tensors(), installed)
    with pytest.raises(CheckpointError, match=message):
        nano.unpack(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", None, ".cache/gptoss"),
        ("darwin", None, "Library/Caches/gptoss"),
        ("win32", "LOCALAPPDATA", "local/gptoss"),
        ("darwin", "XDG_CACHE_HOME", "local/gptoss"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_such_things(
    platform: str,
    variable: str | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "local"))
    monkeypatch.setattr(sys, "platform", platform)
    assert nano.default_cache() == tmp_path / expected
