"""JSON Schema -> TypeScript that loses nothing a model needs: the option beside `schema`.

What `schema.typescript` writes as `any` is written here: anyOf and oneOf as unions, allOf as an
intersection, const and enums of any type as literals, `$ref` resolved in place (a type that
contains itself, or is long and comes again, is named and declared above), tuples, maps, nullable
types, and descriptions of many lines as comments of many lines.

```
{"anyOf": [{"const": 1}, {"type": "array", "items": {"enum": ["a", "b"]}}]}   ->
1 | ("a" | "b")[]
```
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any, Final

from gptoss_harmony.errors import ConversationError
from gptoss_harmony.schema import json_text

_SCALARS: Final = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
}
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_LIMITS: Final = (
    "format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems",
)  # fmt: skip


def complete_typescript(schema: Any) -> tuple[str, list[str]]:
    """Return the type of a JSON Schema, and declarations of the types that contain themselves.

    Args:
        schema: a JSON value; `True` and `{}` are `any`, `False` is `never`.

    Raises:
        ConversationError: a `$ref` that leads outside the schema or nowhere.
    """
    writer = _Writer(schema)
    text = writer.type(schema, "")
    return text, list(writer.declarations.values())


class _Writer:
    """Writes one schema; `declarations` fills up with its recursive types."""

    def __init__(self, root: Any) -> None:
        self.declarations: dict[str, str] = {}
        self._root = root
        self._open: list[str] = []  # references being written
        self._names: dict[str, str] = {}  # of every reference seen
        self._named: set[str] = set()  # references that were written as a name

    def type(self, schema: Any, indent: str) -> str:
        """Return the type; unions are without parentheses."""
        if not isinstance(schema, dict):
            return "never" if schema is False else "any"
        text = self._reference(schema, indent) if "$ref" in schema else self._own(schema, indent)
        nullable = schema.get("nullable") is True and "null" not in text.split(" | ")
        return f"{text} | null" if nullable else text

    def _own(self, schema: Mapping[str, Any], indent: str) -> str:
        if "const" in schema:
            return json_text(schema["const"])
        if isinstance(values := schema.get("enum"), list):
            return " | ".join(map(json_text, values)) or "never"
        parts = [self._shape(schema, indent)]
        for key in ("anyOf", "oneOf"):
            if isinstance(variants := schema.get(key), list):
                parts.append(_union([self.type(variant, indent) for variant in variants]))
        if isinstance(all_of := schema.get("allOf"), list):
            parts += [self.type(part, indent) for part in all_of]
        known = [part for part in dict.fromkeys(parts) if part != "any"]
        if len(known) <= 1:
            return known[0] if known else "any"
        return " & ".join(map(_grouped, known))

    def _shape(self, schema: Mapping[str, Any], indent: str) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            return _union([self._shape({**schema, "type": name}, indent) for name in kind])
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, indent)
        if kind == "array" or (kind is None and ("items" in schema or "prefixItems" in schema)):
            return self._array(schema, indent)
        return _SCALARS.get(kind, "any") if isinstance(kind, str) else "any"

    def _array(self, schema: Mapping[str, Any], indent: str) -> str:
        rest = schema.get("items", True)
        if isinstance(first := schema.get("prefixItems"), list):
            items = [self.type(item, indent) for item in first]
            if rest is not False:
                items.append(f"...{_grouped(self.type(rest, indent))}[]")
            return f"[{', '.join(items)}]"
        return f"{_grouped(self.type(rest, indent))}[]"

    def _object(self, schema: Mapping[str, Any], indent: str) -> str:
        properties = schema.get("properties")
        others = schema.get("additionalProperties")
        if not isinstance(properties, dict):
            properties = {}
        if not properties and isinstance(others, dict):
            return f"{{ [key: string]: {self.type(others, indent)} }}"
        required = schema.get("required")
        needed = required if isinstance(required, list) else []
        lines = ["{"]
        for key, value in properties.items():
            lines += [f"{indent}// {line}".rstrip() for line in _comments(value)]
            name = key if _PLAIN_KEY.fullmatch(key) else json_text(key)
            mark = "" if key in needed else "?"
            text = self.type(value, f"{indent}    ")
            lines.append(f"{indent}{name}{mark}: {text},{_trailing(value)}")
        if isinstance(others, dict):
            lines.append(f"{indent}[key: string]: {self.type(others, indent)},")
        return "\n".join([*lines, f"{indent}}}"])

    def _reference(self, schema: Mapping[str, Any], indent: str) -> str:
        """In place at first; by name if the type contains itself, or is long and comes again."""
        reference = str(schema["$ref"])
        if reference in self._names and (reference in self._open or self._is_declared(reference)):
            self._named.add(reference)
            return self._names[reference]
        seen = reference in self._names
        target = self._resolve(reference)
        name = self._names.setdefault(reference, self._new_name(reference))
        self._open.append(reference)
        text = self.type(target, "" if seen else indent)
        if reference not in self._named and not (seen and "\n" in text):
            self._open.pop()
            return text
        self._named.add(reference)
        body = text if seen else self.type(target, "")
        self._open.pop()
        self.declarations[name] = f"type {name} = {body};"
        return name

    def _is_declared(self, reference: str) -> bool:
        return self._names[reference] in self.declarations

    def _new_name(self, reference: str) -> str:
        name, taken = _type_name(reference), set(self._names.values())
        numbered = (f"{name}{number}" for number in itertools.count(2))
        return next(n for n in itertools.chain([name], numbered) if n not in taken)

    def _resolve(self, reference: Any) -> Any:
        """Follow a JSON pointer inside the schema."""
        target = self._root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise ConversationError(
                f"the schema refers to {reference!r}; only references inside it, such as "
                "#/$defs/name, can be rendered"
            )
        for part in reference[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or key not in target:
                raise ConversationError(f"the schema refers to {reference}, which is not there")
            target = target[key]
        return target


def _union(types: list[str]) -> str:
    return " | ".join(dict.fromkeys(types)) or "never"


def _grouped(text: str) -> str:
    """Parentheses around a union or intersection that becomes part of something."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "{[(") - (character in "}])")
        if depth == 0 and text[index : index + 3] in (" | ", " & "):
            return f"({text})"
    return text


def _type_name(reference: Any) -> str:
    words = re.split(r"[^A-Za-z0-9]+", str(reference).rpartition("/")[2])
    name = "".join(word[:1].upper() + word[1:] for word in words)
    return name if name and not name[0].isdigit() else f"Type{name}"


def _comments(schema: Any) -> list[str]:
    """Title, description and examples, one comment line for each of their lines."""
    if not isinstance(schema, dict):
        return []
    lines: list[str] = []
    for key in ("title", "description"):
        if isinstance(text := schema.get(key), str):
            lines += text.splitlines()
    examples = schema.get("examples")
    if isinstance(examples, list) and examples:
        lines += ["Examples:", *(f"- {json_text(example)}" for example in examples)]
    return lines


def _trailing(schema: Any) -> str:
    """The default and the limits that TypeScript cannot say, behind the definition."""
    if not isinstance(schema, dict):
        return ""
    notes = [f"default: {json_text(schema['default'])}"] if "default" in schema else []
    notes += [f"{key}: {json_text(schema[key])}" for key in _LIMITS if key in schema]
    return f" // {', '.join(notes)}" if notes else ""
