"""Discovery: what is installed, what is missing, and what is said about it."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from gptoss_harmony import open_engine, plugins
from gptoss_harmony.errors import CheckpointError, NotInstalled, UsageError


def test_our_own_engine_and_commands_are_found() -> None:
    assert "scripted" in plugins.discover(plugins.ENGINES)
    assert {"generate", "download", "inspect", "convert", "bench"} <= set(
        plugins.discover(plugins.COMMANDS)
    )


def test_a_known_engine_that_is_missing_names_its_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "discover", lambda group: {})
    with pytest.raises(NotInstalled, match="pip install gptoss-metal"):
        open_engine("metal", "nano")


def test_an_unknown_engine_lists_what_there_is() -> None:
    with pytest.raises(UsageError, match="scripted"):
        open_engine("warp-drive", "nano")


def test_an_unknown_option_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no option colour.*tokens_per_second"):
        open_engine("scripted", str(tmp_path), colour="red")


def test_a_broken_wheel_is_one_sentence() -> None:
    point = EntryPoint(name="x", value="no_such_module_at_all:Engine", group=plugins.ENGINES)
    with pytest.raises(NotInstalled, match="repair it"):
        plugins.load(point)


class Present:
    @staticmethod
    def unavailable() -> str | None:
        return None


class Absent:
    @staticmethod
    def unavailable() -> str | None:
        return "no GPU here"


@pytest.mark.parametrize(
    ("engines", "chosen"),
    [
        ({"triton": Present, "metal": Present, "torch": Present}, "triton"),
        ({"triton": Absent, "metal": Present, "torch": Present}, "metal"),
        ({"triton": Absent, "torch": Present}, "torch"),
        ({"torch": object}, "torch"),
    ],
)
def test_auto_takes_the_best_that_can_run(
    monkeypatch: pytest.MonkeyPatch, engines: dict[str, type], chosen: str
) -> None:
    monkeypatch.setattr(plugins, "discover", lambda group: engines)
    monkeypatch.setattr(plugins, "engine_class", engines.__getitem__)
    name, passed_over = plugins.choose_engine()
    assert name == chosen
    assert len(passed_over) == plugins.AUTO_ORDER.index(chosen)


def test_auto_with_nothing_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "discover", lambda group: {})
    with pytest.raises(NotInstalled, match="pip install gptoss-core"):
        open_engine("auto", "nano")


def test_a_missing_script_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a script"):
        open_engine("scripted", str(tmp_path / "missing.json"))
