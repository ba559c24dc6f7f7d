"""JSON Schema -> the TypeScript that gpt-oss was trained to read in tool definitions.

`{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}` becomes

```
{
city: string,
}
```

This is the rendering of openai-harmony 0.0.8, quirks included, because it is what models saw: it
knows `type`, `enum` of strings, `items`, `properties`, `required`, `oneOf`, `nullable`, `title`,
`description`, `examples` and `default`, and says `any` for the rest. `schema_complete` says more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_SCALARS = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean"}


def typescript(schema: Any, indent: str = "") -> str:
    """Return the type of a JSON Schema.

    Args:
        schema: a JSON value; anything but an object is `any`.
        indent: what the lines inside start with.
    """
    if not isinstance(schema, dict):
        return "any"
    if isinstance(variants := schema.get("oneOf"), list):
        return "".join(f"\n{indent} | {_variant(variant, indent)}" for variant in variants)
    match schema.get("type"):
        case list() as names if union := [name for name in names if isinstance(name, str)]:
            return " | ".join("number" if name == "integer" else name for name in union)
        case "object":
            return _object(schema, indent)
        case "string" if values := _string_enum(schema):
            return " | ".join(f'"{value}"' for value in values)
        case "array":
            return f"{typescript(schema['items'], indent)}[]" if "items" in schema else "Array<any>"
        case str() as name:
            return _SCALARS.get(name, "any")
    return "any"


def json_text(value: Any) -> str:
    """Return compact JSON, with numbers as Rust's serde_json writes them: `1e100`, not `1e+100`.

    Args:
        value: what `json.loads` returns.
    """
    match value:
        case float():
            return _float_text(value)
        case bool() | None | str():
            return json.dumps(value, ensure_ascii=False)
        case int():
            return str(value) if -(2**63) <= value < 2**64 else _float_text(value)
        case list():
            return f"[{','.join(map(json_text, value))}]"
    return "{" + ",".join(f"{json_text(k)}:{json_text(v)}" for k, v in value.items()) + "}"


def _float_text(value: float | int) -> str:
    """A number as a float: shortest decimal, an exponent only below 1e-5 and from 1e16 on."""
    text = repr(_as_read_by_serde(repr(value)))
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    if int(exponent) == -5:  # repr turns to exponents one decade earlier than serde_json
        sign = "-" if mantissa.startswith("-") else ""
        return f"{sign}0.0000{mantissa.lstrip('-').replace('.', '')}"
    return f"{mantissa}e{int(exponent)}"


def _as_read_by_serde(text: str) -> float:
    """Parse a decimal as serde_json does: digits as a float, times or over a power of ten.

    That is off by a unit in the last place for some numbers, so that a default of
    1.1579208923731604e+77 is shown as 1.1579208923731603e77.
    """
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0") or "0"
    power = int(exponent or 0) - len(fraction)
    while int(digits) >= 2**64:
        digits, power = digits[:-1], power + 1
    value = float(int(digits))
    while power < -308:
        value, power = value / 1e308, power + 308
    value = value * float(f"1e{power}") if power >= 0 else value / float(f"1e{-power}")
    return -value if text.startswith("-") else value


def _string_enum(schema: Mapping[str, Any]) -> list[str]:
    values = schema.get("enum")
    return [v for v in values if isinstance(v, str)] if isinstance(values, list) else []


def _is_enum(schema: Any) -> bool:
    return (
        isinstance(schema, dict) and isinstance(schema.get("enum"), list) and bool(schema["enum"])
    )


def _text(schema: Any, key: str) -> str | None:
    value = schema.get(key) if isinstance(schema, dict) else None
    return value if isinstance(value, str) else None


def _default(schema: Mapping[str, Any], *, quote_enum: bool = False) -> str:
    """`default: 10`; strings are quoted but not escaped, and those of an enum are bare."""
    value = schema["default"]
    if isinstance(value, str) and not _is_enum(schema):
        return f'default: "{value}"'
    if isinstance(value, str) and not quote_enum:
        return f"default: {value}"
    return f"default: {json_text(value)}"


def _nullable(schema: Any, text: str) -> str:
    wanted = isinstance(schema, dict) and schema.get("nullable") is True
    return f"{text} | null" if wanted and "null" not in text else text


def _variant(variant: Any, indent: str) -> str:
    """One line of a oneOf that is not the value of a property."""
    text = _nullable(variant, typescript(variant, indent + "   "))
    notes = []
    if (description := _text(variant, "description")) is not None:
        notes.append(description)
    if isinstance(variant, dict) and "default" in variant:
        notes.append(_default(variant, quote_enum=True))
    return f"{text} // {' '.join(notes)}" if notes else text


def _object(schema: Mapping[str, Any], indent: str) -> str:
    description = _text(schema, "description")
    lines = [f"{indent}// {description}\n" if description is not None else "", "{\n"]
    properties = schema.get("properties")
    required = schema.get("required")
    needed = set(map(json_text, required)) if isinstance(required, list) else set()
    for key, value in properties.items() if isinstance(properties, dict) else ():
        mark = "" if json_text(key) in needed else "?"
        lines.append(_property(f"{indent}{key}{mark}", value, indent))
    return "".join(lines) + indent + "}"


def _property(name: str, value: Any, indent: str) -> str:
    """The comment lines and the definition of one property; `name` is indented and marked."""
    lines = [_comments(value, indent)]
    if isinstance(value, dict) and isinstance(value.get("oneOf"), list):
        lines.append(_one_of_property(name, value, indent))
        return "".join(lines)
    text = _nullable(value, typescript(value, indent + "    "))
    lines.append(f"{name}: {text},")
    if isinstance(value, dict) and "oneOf" not in value and "default" in value:
        lines.append(f" // {_default(value)}")
    return "".join(lines) + "\n"


def _comments(value: Any, indent: str) -> str:
    """Title, description and examples, above the property."""
    lines = []
    if (title := _text(value, "title")) is not None:
        lines += [title, None]
    if (description := _text(value, "description")) is not None and "oneOf" not in value:
        lines.append(description)
    examples = value.get("examples") if isinstance(value, dict) else None
    if isinstance(examples, list) and examples:
        lines.append("Examples:")
        lines += [f'- "{example}"' for example in examples if isinstance(example, str)]
    return "".join(f"{indent}//\n" if line is None else f"{indent}// {line}\n" for line in lines)


def _one_of_property(name: str, value: Mapping[str, Any], indent: str) -> str:
    variants: Sequence[Any] = value["oneOf"]
    description = _text(value, "description")
    # A description that repeats the first variant's stays with the variant... and is then dropped
    # there as a repetition: the reference does so, and models were trained on it.
    first = _text(variants[0], "description") if variants else None
    above = description is not None and description != first
    lines = [f"{indent}// {description}\n"] if above else []
    if "default" in value:
        lines.append(f"{indent}// {_default(value)}\n")
    lines.append(f"{name}:\n")
    for index, variant in enumerate(variants):
        text = _nullable(variant, typescript(variant, indent + "   "))
        notes = []
        note = None if index == 0 and above else _text(variant, "description")
        if note is not None and note != description:
            notes.append(note)
        if isinstance(variant, dict) and "default" in variant:
            notes.append(_default(variant))
        lines.append(f"{indent} | {text}{' // ' + ' '.join(notes) if notes else ''}\n")
    return "".join(lines) + f"{indent},\n"
