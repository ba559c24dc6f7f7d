"""The compatible schema renderer equals openai-harmony, quirks and numbers included."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai_harmony import DeveloperContent, Message, Role, ToolDescription

from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.schema import json_text, typescript

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [0.0, -0.0, 1e-4, 1e-5, 1.5e-5, 1e-6, 1e15, 1e16, 123456789012345680.0, 5e-324]
    ),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)
TYPES = ["object", "string", "number", "integer", "boolean", "array", "null", "strange"]


def schemas() -> st.SearchStrategy[Any]:
    """JSON Schemas, and things that are none where a sloppy author would put them."""

    def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries(
            {},
            optional={
                "type": st.one_of(
                    st.sampled_from(TYPES),
                    st.lists(st.sampled_from([*TYPES, 3]), max_size=3),
                    st.none(),
                ),
                "properties": st.one_of(st.dictionaries(TEXT, inner, max_size=3), TEXT),
                "required": st.one_of(st.lists(TEXT, max_size=3), st.none()),
                "items": inner,
                "oneOf": st.one_of(st.lists(inner, max_size=3), st.none()),
                "anyOf": st.lists(inner, max_size=2),
                "enum": st.one_of(st.lists(st.one_of(TEXT, NUMBERS), max_size=3), TEXT),
                "default": VALUES,
                "nullable": st.one_of(st.booleans(), TEXT),
                "title": st.one_of(TEXT, st.integers()),
                "description": st.one_of(TEXT, st.none()),
                "examples": st.one_of(st.lists(st.one_of(TEXT, NUMBERS), max_size=3), TEXT),
            },
        )

    return st.recursive(st.one_of(VALUES, st.just({"type": "string"})), extend, max_leaves=12)


def reference(schema: dict[str, Any]) -> str:
    """What openai-harmony writes for the parameters of a tool."""
    encoding = load_encoding()
    tool = ToolDescription.new("f", "", parameters=schema)
    content = DeveloperContent.new().with_function_tools([tool])
    message = Message.from_role_and_content(Role.DEVELOPER, content)
    text = encoding.decode(encoding.harmony.render(message))
    head, tail = "type f = (_: ", ") => any;\n\n} // namespace functions<|end|>"
    assert text.endswith(tail)
    return text[text.index(head) + len(head) : -len(tail)]


KITCHEN_SINK = {
    "type": "object",
    "description": "Everything at once",
    "properties": {
        "plain": {"type": "string", "title": "Title", "description": "Words"},
        "choice": {"type": "string", "enum": ["a", "b"], "default": "a", "nullable": True},
        "count": {"type": "integer", "default": 3, "examples": ["1", 2]},
        "either": {
            "description": "One of these",
            "default": "x",
            "oneOf": [
                {"type": "string", "description": "One of these", "default": "x"},
                {"type": "object", "properties": {"deep": {"type": "array"}}, "nullable": True},
                {"type": "string", "enum": ["p"], "default": "p", "description": "third"},
            ],
        },
        "other": {
            "description": "Above",
            "oneOf": [{"type": "number", "description": "first"}, {"type": "null"}],
        },
        "list": {"type": "array", "items": {"oneOf": [{"type": "string"}, {"type": "number"}]}},
        "union": {"type": ["integer", "null"], "default": None},
        "inner": {
            "type": "object",
            "description": "Nested",
            "properties": {"city": {"type": "string", "description": "two\nlines"}},
            "required": ["city"],
        },
        "lost": {"anyOf": [{"type": "string"}]},
    },
    "required": ["plain", "inner"],
}


@settings(max_examples=70, deadline=None)
@given(schemas().filter(lambda schema: isinstance(schema, dict)))
@example(KITCHEN_SINK)
@example({"oneOf": [{"type": "string", "enum": ["a"], "default": "a"}, {"default": 1e-7}]})
def test_typescript_equals_openai_harmony(schema: dict[str, Any]) -> None:
    assert typescript(json.loads(json.dumps(schema))) == reference(schema)


@settings(max_examples=70, deadline=None)
@given(VALUES)
def test_json_text_means_the_value(value: Any) -> None:
    def close(left: Any, right: Any) -> bool:
        if isinstance(left, list):
            return len(left) == len(right) and all(map(close, left, right))
        if isinstance(left, dict):
            return left.keys() == right.keys() and all(close(left[k], right[k]) for k in left)
        if isinstance(left, int | float) and not isinstance(left, bool):
            return math.isclose(left, right, rel_tol=1e-14)
        return bool(left == right)

    assert close(value, json.loads(json_text(value)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e100, "1e100"),
        (1e-7, "1e-7"),
        (1.5e-5, "0.000015"),
        (-0.0, "-0.0"),
        (1e16, "1e16"),
        (2**64, "1.8446744073709552e19"),
        ({"é": [True, None, "\u0001"]}, '{"é":[true,null,"\\u0001"]}'),
    ],
)
def test_numbers_are_written_as_serde_json_writes_them(value: Any, text: str) -> None:
    assert json_text(value) == text
