r"""A JSON Schema as the constraint engine enforces it exactly, or a refusal that says why.

llguidance knows most of JSON Schema; a few things it takes too easily, so they are rewritten:

| in the schema | what it would let through | here |
|---|---|---|
| `format` date, date-time, time | 29 February of any year, second 60, year 0 | an exact pattern |
| a `$ref` with letters beyond ASCII | (it refuses them) | written with percent signs |
| `minProperties` over free keys | the same key twice, which is one | refused, if keys are lacking |
| any text | `\u0061` as a second spelling of a key `a` | escapes only for what needs one |
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from gptoss_harmony.errors import GrammarError

_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_ONES: Final = frozenset({"items", "additionalItems", "additionalProperties"})

_YEAR: Final = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR: Final = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE: Final = (
    f"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    f"|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_CLOCK: Final = "([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME: Final = rf"{_CLOCK}:[0-5][0-9](\.[0-9]{{1,9}})?(Z|[+-]{_CLOCK})"
_EXACT_FORMATS: Final = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
}
# JSON may be laid out as the model likes, but may not go on with blanks for ever.
_BLANKS: Final = r"[ \n\r\t]{0,24}"
_ESCAPES: Final = 'nrbtf\\"'
_CONTROL: Final = re.compile(r"\\u00[01]")


def enforceable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema for llguidance, its options included.

    Args:
        schema: JSON values only.

    Raises:
        GrammarError: something that cannot be enforced; it is named.
    """
    # A text of the schema with control characters can only be written with \u escapes.
    escapes = _ESCAPES + ("u" if _CONTROL.search(json.dumps(schema)) else "")
    options = {"whitespace_pattern": _BLANKS, "json_allowed_escapes": escapes}
    return {"x-guidance": options, **_node(schema)}


def _node(schema: Mapping[str, Any]) -> dict[str, Any]:
    exact = {key: _inner(key, value) for key, value in schema.items()}
    if isinstance(reference := schema.get("$ref"), str):
        exact["$ref"] = urllib.parse.quote(reference, safe="#/:?&=%~$!'()*+,;@[]")
    _settle_format(exact)
    _settle_least_properties(exact)
    return exact


def _inner(key: str, value: Any) -> Any:
    if key in _MAPS and isinstance(value, dict):
        return {
            name: _node(part) if isinstance(part, dict) else part for name, part in value.items()
        }
    if key in _LISTS and isinstance(value, list):
        return [_node(part) if isinstance(part, dict) else part for part in value]
    return _node(value) if key in _ONES and isinstance(value, dict) else value


def _settle_format(schema: dict[str, Any]) -> None:
    """Write a format of dates as a pattern, beside any pattern that is there already."""
    pattern = _EXACT_FORMATS.get(schema.get("format", "")) if "format" in schema else None
    if pattern is None:
        return
    del schema["format"]
    if "pattern" in schema:
        schema["allOf"] = [*schema.get("allOf", ()), {"pattern": pattern}]
    else:
        schema["pattern"] = pattern


def _settle_least_properties(schema: dict[str, Any]) -> None:
    """Drop `minProperties` where it says nothing new; refuse it where it cannot be counted."""
    least = schema.get("minProperties")
    if not isinstance(least, int) or least <= 1:
        return
    required = schema.get("required")
    if not isinstance(required, list) or len(set(map(str, required))) < least:
        raise GrammarError(
            f"minProperties: {least} cannot be enforced unless as many keys are required, because "
            "a key may come twice; require them, or leave it out"
        )
    del schema["minProperties"]
