"""The complete schema renderer says what the compatible one loses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_harmony import ToolDescription

from gptoss_harmony.conversation import developer_message
from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.errors import ConversationError
from gptoss_harmony.render import RenderStyle
from gptoss_harmony.schema_complete import complete_typescript

NODE = {
    "type": "object",
    "properties": {
        "value": {"type": ["integer", "null"], "minimum": 0},
        "next": {"$ref": "#/$defs/node"},
    },
    "required": ["value"],
}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (
            {"anyOf": [{"const": 1}, {"type": "array", "items": {"enum": ["a", None]}}]},
            '1 | ("a" | null)[]',
        ),
        ({"enum": [1, 2.5, True, 'q"']}, '1 | 2.5 | true | "q\\""'),
        ({"type": "string", "nullable": True}, "string | null"),
        ({"type": ["string", "integer", "number"]}, "string | number"),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, "string | null"),
        (
            {"allOf": [{"type": "string"}, {"anyOf": [{"const": 1}, {"const": 2}]}]},
            "string & (1 | 2)",
        ),
        ({"prefixItems": [{"type": "string"}], "items": False}, "[string]"),
        ({"prefixItems": [{"type": "string"}]}, "[string, ...any[]]"),
        (
            {"type": "object", "additionalProperties": {"type": "number"}},
            "{ [key: string]: number }",
        ),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "boolean"}}}, "boolean"),
        ({"enum": []}, "never"),
        (False, "never"),
        (True, "any"),
        ({}, "any"),
        (
            {
                "type": "object",
                "properties": {
                    "a-b": {"type": "integer", "default": 1, "maximum": 9, "description": "x\ny"},
                    "c": {"type": "object", "properties": {"d": {"enum": [1]}}, "required": ["d"]},
                },
                "required": ["c"],
            },
            '{\n// x\n// y\n"a-b"?: number, // default: 1, maximum: 9\nc: {\n    d: 1,\n    },\n}',
        ),
    ],
)
def test_types(schema: Any, text: str) -> None:
    assert complete_typescript(schema) == (text, [])


def test_a_type_that_contains_itself_is_declared() -> None:
    text, declarations = complete_typescript({"$ref": "#/$defs/node", "$defs": {"node": NODE}})
    assert text == "Node"
    assert declarations == ["type Node = {\nvalue: number | null, // minimum: 0\nnext?: Node,\n};"]
    tool = ToolDescription.new("f", "does", {"$ref": "#/$defs/node", "$defs": {"node": NODE}})
    encoding = load_encoding()
    tokens = encoding.render(
        developer_message(functions=[tool]), style=RenderStyle(schemas="complete")
    )
    assert "// does\ntype Node = {" in encoding.decode(tokens)
    assert "type f = (_: Node) => any;" in encoding.decode(tokens)


def test_references_that_branch_do_not_explode() -> None:
    defs: dict[str, Any] = {"d50": {"type": "string"}}
    for i in range(50):
        branch = {"$ref": f"#/$defs/d{i + 1}"}
        defs[f"d{i}"] = {"type": "object", "properties": {"a": branch, "b": branch}}
    text, declarations = complete_typescript({"$ref": "#/$defs/d0", "$defs": defs})
    assert len(text) + sum(map(len, declarations)) < 50_000


@pytest.mark.parametrize("reference", ["#/$defs/no", "other.json", 3, "#/type/x"])
def test_a_reference_to_nowhere_is_refused(reference: Any) -> None:
    with pytest.raises(ConversationError, match="the schema refers to"):
        complete_typescript({"type": "object", "properties": {"a": {"$ref": reference}}})


def test_a_schema_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    tool = ToolDescription.new("f", "", schema)
    for style in ("compatible", "complete"):
        with pytest.raises(ConversationError, match="'f' are nested too deeply"):
            load_encoding().render(
                developer_message(functions=[tool]),
                style=RenderStyle(schemas=style),  # type: ignore[arg-type]
            )


KEYWORDS = [
    *("type", "properties", "items", "prefixItems", "anyOf", "allOf", "enum", "const"),
    *("required", "description", "examples", "default", "nullable", "additionalProperties"),
]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(KEYWORDS),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=15,
)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_sloppy_schemas_are_survived(schema: Any) -> None:
    text, _ = complete_typescript(schema)
    assert text
