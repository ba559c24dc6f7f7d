"""Random JSON Schemas, and the judge of what was written under them.

The same seed gives the same schemas. Each is one that the server must enforce: nested objects,
arrays with bounds, `$ref` into `$defs` with recursion, anyOf, allOf, const, enums of any type,
formats, patterns, bounds, type lists, open and closed objects, and keys and values of any script.
"""

from __future__ import annotations

import datetime
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import jsonschema
import pytest

Json = dict[str, Any]

KEYS = (
    *("id", "name", "größe", "città", "名前", "ключ", "مفتاح", "😀", "x/y", "$ref", "type"),
    *("format", "e\u0301", "ÅÄÖ", "κλειδί", "", "a b", 'q"uote', "back\\slash", "line\nbreak"),
)
WORDS = ("red", "Grün", "京都", "😀😀", "Ω", "null", "", "a b", 'say "hi"', "tab\t", "back\\slash")
PATTERNS = (r"^[A-Z]{2}-[0-9]{3}$", r"^\d+(\.\d\d)?$", r"^(yes|no|vielleicht)$", r"[äöü]",
            r"^[^\s]{1,8}$", r"^#([0-9a-fA-F]{2}){3}$", r"^\w+( \w+)*$")  # fmt: skip
FORMATS = ("date", "date-time", "time", "uuid", "email", "ipv4", "ipv6", "hostname", "uri")
REFERENCES = ("node", "größe/~m", "leaf")


class SchemaMaker:
    """Makes schemas.

    Args:
        seed: fixes all of them.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def make(self) -> Json:
        """Return a schema whose instances are objects."""
        root = self._object(3)
        if "$ref" in json.dumps(root) or self._chance.random() < 0.3:
            root["$defs"] = {
                "node": self._tree(),
                "größe/~m": self._scalar(),
                "leaf": {"anyOf": [{"type": "null"}, self._object(0)]},
            }
        return root

    def _any(self, depth: int) -> Json:
        kinds: Sequence[Callable[[int], Json]] = (
            self._object,
            self._array,
            self._any_of,
            self._reference,
            lambda _: self._scalar(),
            lambda _: self._scalar(),
            lambda _: self._scalar(),
        )
        return self._scalar() if depth <= 0 else self._chance.choice(kinds)(depth - 1)

    def _object(self, depth: int) -> Json:
        keys = self._chance.sample(KEYS, self._chance.randint(1, 4))
        schema: Json = {
            "type": "object",
            "properties": {key: self._any(depth) for key in keys},
            "required": [key for key in keys if self._chance.random() < 0.7],
            "additionalProperties": False,
        }
        form = self._chance.random()
        if form < 0.1:
            schema["additionalProperties"] = self._scalar()
        elif form < 0.2:
            del schema["additionalProperties"]
        elif form < 0.3:
            schema["patternProperties"] = {"^x-": self._scalar()}
        elif form < 0.4:
            schema["minProperties"] = 1
        return schema

    def _array(self, depth: int) -> Json:
        least = self._chance.randint(0, 2)
        schema: Json = {"type": "array", "items": self._any(depth), "minItems": least}
        if self._chance.random() < 0.8:
            schema["maxItems"] = least + self._chance.randint(0, 3)
        if self._chance.random() < 0.2:
            schema["prefixItems"] = [self._scalar(), self._scalar()]
        return schema

    def _any_of(self, depth: int) -> Json:
        return {"anyOf": [self._any(depth) for _ in range(self._chance.randint(2, 3))]}

    def _reference(self, depth: int) -> Json:
        name = self._chance.choice(REFERENCES)
        return {"$ref": f"#/$defs/{name.replace('~', '~0').replace('/', '~1')}"}

    def _tree(self) -> Json:
        children = {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}
        return {
            "type": "object",
            "properties": {"value": self._scalar(), "children": children},
            "required": ["value", "children"],
            "additionalProperties": False,
        }

    def _scalar(self) -> Json:
        make = self._chance.choice(
            (
                self._text,
                self._text,
                self._integer,
                self._number,
                self._enum,
                self._const,
                self._mix,
            )
        )
        schema = make()
        if self._chance.random() < 0.2:
            schema["description"] = self._chance.choice(("What it is.", "Größe in m²\nund mehr"))
        return schema

    def _text(self) -> Json:
        form = self._chance.random()
        if form < 0.4:
            return {"type": "string", "format": self._chance.choice(FORMATS)}
        if form < 0.65:
            return {"type": "string", "pattern": self._chance.choice(PATTERNS)}
        if form < 0.85:
            least = self._chance.randint(0, 4)
            most = least + self._chance.randint(0, 12)
            return {"type": "string", "minLength": least, "maxLength": most}
        return {"type": "string"}

    def _integer(self) -> Json:
        low = self._chance.randint(-1000, 1000)
        bounds: Json = {"type": "integer"}
        if self._chance.random() < 0.7:
            bounds[self._chance.choice(("minimum", "exclusiveMinimum"))] = low
        if self._chance.random() < 0.7:
            high = low + self._chance.randint(2, 500)
            bounds[self._chance.choice(("maximum", "exclusiveMaximum"))] = high
        if len(bounds) == 1:
            bounds["multipleOf"] = self._chance.choice((2, 5, 10))
        return bounds

    def _number(self) -> Json:
        low = self._chance.choice((-2.5, 0, 0.25, 17))
        return {
            "type": "number",
            "minimum": low,
            "maximum": low + self._chance.choice((0.5, 3, 99)),
        }

    def _enum(self) -> Json:
        values: list[Any] = [*WORDS, 0, 1, -7, 2.5, True, None, ["x", 1], {"k": "v"}]
        if self._chance.random() < 0.5:
            values = list(WORDS)
        return {"enum": self._chance.sample(values, self._chance.randint(1, 5))}

    def _const(self) -> Json:
        return {
            "const": self._chance.choice((*WORDS, 3, False, None, [1, "zwei"], {"a": {"b": []}}))
        }

    def _mix(self) -> Json:
        names = self._chance.sample(["string", "integer", "boolean", "null"], 2)
        either: Json = {"type": names}
        if "string" in names:
            either["maxLength"] = 6
        whole: Json = {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 30}]}
        return self._chance.choice((either, {"type": "boolean"}, {"type": "null"}, whole))


def _is_instant(value: object) -> bool:
    """RFC 3339, but no leap seconds, which Python and most clients cannot read."""
    if not isinstance(value, str):
        return True
    shape = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
    datetime.datetime.fromisoformat(value)
    return re.fullmatch(shape, value, re.ASCII) is not None


def _is_time(value: object) -> bool:
    return not isinstance(value, str) or _is_instant(f"2000-01-01T{value}")


def _is_host(value: object) -> bool:
    label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return not isinstance(value, str) or bool(re.fullmatch(rf"{label}(\.{label})*", value))


def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:\S*", value))


def _checker() -> jsonschema.FormatChecker:
    checker = jsonschema.FormatChecker(("date", "uuid", "email", "ipv4", "ipv6"))
    checker.checks("date-time", ValueError)(_is_instant)
    checker.checks("time", ValueError)(_is_time)
    checker.checks("hostname")(_is_host)
    checker.checks("uri")(_is_uri)
    return checker


CHECKER = _checker()


def judge(text: str, schema: Json) -> None:
    """Fail unless a text is JSON and valid, formats included."""
    jsonschema.Draft202012Validator(schema, format_checker=CHECKER).validate(json.loads(text))


@pytest.fixture(scope="session")
def make_schemas() -> Callable[[int], list[Json]]:
    """So many schemas; the first ones are the same for any number."""

    def make(count: int) -> list[Json]:
        return [SchemaMaker(seed).make() for seed in range(count)]

    return make


@pytest.fixture(scope="session")
def judged() -> Callable[[str, Json], None]:
    return judge
