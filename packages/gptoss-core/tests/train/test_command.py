from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from gptoss_core.train import command
from gptoss_harmony.errors import UsageError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(arguments)


def test_the_command_line_overrides_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[train]\nsteps = 7\noptimizer = "muon"\nlora_targets = ["experts"]\n')
    args = parse(
        "data", "--out", "x", "--recipe", str(recipe), "--steps", "9", "--channels", "final"
    )
    settings = command.read_settings(args)
    assert (settings.steps, settings.optimizer) == (9, "muon")
    assert (settings.lora_targets, settings.channels) == (("experts",), ("final",))


def test_a_bad_recipe_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[train")
    with pytest.raises(UsageError, match=r"recipe\.toml cannot be read"):
        command.read_settings(parse("data", "--out", "x", "--recipe", str(recipe)))


def test_trains_from_the_command_line(
    shard: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    args = parse(
        *(str(shard), "--init", str(config_file), "--out", str(out), "--steps", "2"),
        *("--context", "64", "--tokens-per-step", "128", "--device", "cpu", "--dtype", "float32"),
    )
    assert command.run(args) == 0
    assert capsys.readouterr().out == f"wrote {out / 'original'}\n"
    reports = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert reports[-1]["held_out"]["tokens"] > 0
    assert (out / "original" / "model.safetensors").exists()
