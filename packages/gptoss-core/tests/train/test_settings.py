from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gptoss_core.train.settings import OPTION_HELP, Settings
from gptoss_harmony.errors import UsageError


def test_every_setting_has_a_help_text() -> None:
    assert set(OPTION_HELP) == {field.name for field in dataclasses.fields(Settings)}


def test_recipes_are_read_with_toml_types() -> None:
    settings = Settings.from_mapping({"learning_rate": 1, "channels": ["final"]})
    assert settings.learning_rate == 1.0
    assert settings.channels == ("final",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "unknown training setting stepz"),
        ({"steps": "3"}, "steps: expected int, found '3'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"rename": 2.0}, "rename is a share"),
        ({"optimizer": "sgd"}, "'sgd' is not one of adamw, muon"),
        ({"channels": ["finale"]}, "'finale' is not one of"),
        ({"tokens_per_step": 10}, "less than one row of context"),
        ({"tail": "codes"}, "needs rows"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings.from_mapping(values)
