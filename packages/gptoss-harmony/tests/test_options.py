"""Flags from dataclasses."""

import argparse
from dataclasses import dataclass, field
from typing import Literal

import pytest

from gptoss_harmony import options
from gptoss_harmony.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Knobs:
    context: int | None = field(default=None, metadata={"help": "positions, 100% of them"})
    share: float = field(default=0.9, metadata={"help": "of memory"})
    fast: bool = field(default=True, metadata={"help": "hurry"})
    dtype: Literal["auto", "float32"] = field(default="auto", metadata={"help": "numbers"})
    device: str = field(default="", metadata={"help": "where"})


class Engine:
    Options = Knobs


@pytest.fixture(autouse=True)
def _one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "engine_class", lambda name: Engine)


def parse(*argv: str) -> dict[str, object]:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("checkpoint")
    options.add_engine_argument(parser, "--engine")
    args = options.parse_arguments(parser, ["--engine", "x", *argv])
    assert args.checkpoint == "nano"
    return options.engine_options(args)


def test_only_given_options_are_returned_with_their_types() -> None:
    assert parse("nano") == {}
    flags = ["--context", "8", "--share", "0.5", "--no-fast", "--dtype", "float32", "--device", "a"]
    assert (
        parse("nano", *flags)
        == parse(*flags, "nano")
        == {
            "context": 8,
            "share": 0.5,
            "fast": False,
            "dtype": "float32",
            "device": "a",
        }
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--contextt", "8"], "unknown argument '--contextt'"),
        (["--context", "many"], "invalid int value"),
        (["--dtype", "float7"], "invalid choice"),
        (["--cont", "8"], "unknown argument '--cont'"),
    ],
)
def test_mistakes_name_the_flag(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse("nano", *flags)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_an_option_that_is_a_flag_of_the_command_is_refused() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--share")
    with pytest.raises(UsageError, match="--share"):
        options.add_engine_options(parser, "x")


def test_help_has_every_option_and_its_default() -> None:
    text = options.options_parser("x").format_help()
    assert "positions, 100% of them" in text
    assert "(default 0.9)" in text


def test_listing_engine_options_leaves_with_success(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    options.add_engine_argument(parser, "--engine")
    with pytest.raises(SystemExit) as left:
        parser.parse_args(["--engine-options"])
    assert left.value.code == 0
    assert "--share" in capsys.readouterr().out
