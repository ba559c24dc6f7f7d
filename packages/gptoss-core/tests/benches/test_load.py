from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

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


def test_the_host_s_peak_is_seen() -> None:
    with load.HostPeak() as host:
        blob = torch.ones(1 << 26, dtype=torch.uint8)
        for _ in range(20):
            host._stop.wait(load.SAMPLE_SECONDS)
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells a process its own memory")
    assert host.peak > 0.9 * blob.nbytes
