"""What llguidance would take too easily is exact, or refused with the reason."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from gptoss_harmony import tokens as special
from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.enforceable import enforceable
from gptoss_harmony.errors import GrammarError
from gptoss_harmony.grammar import AnswerFormat, Grammar, JsonSchema

pytest.importorskip("llguidance")

ENCODING = load_encoding()


def accepts(schema: dict[str, Any], text: str) -> bool:
    format = AnswerFormat(channels={"final": JsonSchema(schema)}, prefilled="final")
    constraint = Grammar(ENCODING, format).constraint()
    try:
        for token in [*ENCODING.encode_text(text), special.RETURN]:
            constraint.accept(token)
    except GrammarError:
        return False
    return constraint.done


def is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("year", ["0000", "0001", "0004", "0100", "0400", "1900", "2000", "2023"])
@pytest.mark.parametrize("day", ["02-28", "02-29", "02-30", "04-31", "12-31", "13-01"])
def test_dates_are_those_of_the_calendar(year: str, day: str) -> None:
    date = f"{year}-{day}"
    assert accepts({"type": "string", "format": "date"}, json.dumps(date)) == is_date(date)
    instant = f"{date}T23:59:59.5+01:00"
    assert accepts({"format": "date-time"}, json.dumps(instant)) == is_date(date)


@pytest.mark.parametrize(
    ("time", "good"),
    [("23:59:59Z", True), ("23:59:60Z", False), ("24:00:00Z", False), ("10:00:00", False)],
)
def test_times_have_no_second_sixty(time: str, good: bool) -> None:
    assert accepts({"type": "string", "format": "time"}, json.dumps(time)) is good


def test_a_format_and_a_pattern_hold_both() -> None:
    schema = {"type": "string", "format": "date", "pattern": "^20"}
    assert accepts(schema, '"2024-02-29"')
    assert not accepts(schema, '"1999-01-01"')
    assert not accepts(schema, '"2023-02-29"')


def test_a_reference_may_have_letters_of_any_script() -> None:
    definitions = {"größe/~m": {"type": "integer"}, "a%b c": {"const": 1}}
    schema = {"$defs": definitions, "$ref": "#/$defs/größe~1~0m"}
    assert accepts(schema, "7")
    assert not accepts(schema, '"x"')


def test_a_key_has_one_spelling() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert not accepts(schema, r'{"\u0061":"x"}')
    assert accepts(schema, r'{"b":"\n\"\\"}')
    assert accepts({"enum": ["\u0001"]}, r'"\u0001"'), "it can be written in no other way"


def test_as_many_keys_as_asked_or_a_refusal() -> None:
    required = {"type": "object", "minProperties": 2, "required": ["a", "b"]}
    assert accepts(required, '{"a":1,"b":2}')
    nested = {"type": "array", "items": {"anyOf": [{"type": "object", "minProperties": 2}]}}
    for schema in (nested, {"type": "object", "minProperties": 2, "required": ["a"]}):
        with pytest.raises(GrammarError, match="minProperties: 2 cannot be enforced"):
            Grammar(ENCODING, AnswerFormat(channels={"final": JsonSchema(schema)}))


def test_only_schemas_are_rewritten() -> None:
    schema = {
        "const": {"format": "date", "$ref": "ü"},
        "properties": {"format": {"enum": [{"minProperties": 9}]}, "$ref": {"type": "null"}},
    }
    given = json.loads(json.dumps(schema))
    exact = enforceable(schema)
    del exact["x-guidance"]
    assert exact == given == schema
