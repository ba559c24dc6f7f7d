from __future__ import annotations

import argparse
import json
import threading
from pathlib import Path

import pytest

from gptoss_core.benches import load


def arguments(folder: Path, *flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    load.add_arguments(parser)
    return parser.parse_args(["--checkpoint", str(folder), "--device", "cpu", *flags])


def test_it_reports_the_load(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load.run(arguments(tiny_folder, "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    size = (tiny_folder / "model.safetensors").stat().st_size
    assert report["file_gb"] == size / 1e9
    assert report["layout"] == "original"
    assert report["load_gb_per_second"] > 0
    assert report["plain_read_gb_per_second"] > 0


def test_it_prints_a_line_for_each_number(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load.run(arguments(tiny_folder, "--experts", "dense")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("load gb per second") for line in lines)


def test_the_host_s_peak_is_the_largest_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([100, 150, 400, 300])
    read = threading.Event()

    def next_reading() -> int:
        value = next(readings, None)
        if value is None:
            read.set()
        return value or 0

    monkeypatch.setattr(load, "_anonymous_bytes", next_reading)
    with load.HostPeak() as host:
        assert read.wait(60)
    assert host.peak == 300
