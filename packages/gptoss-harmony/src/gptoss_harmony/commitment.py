"""How many tokens one token can commit an answer to.

A `{` in a long answer may open an object with ten required fields. Whoever must finish within a
budget has to know the worst such surprise beforehand: it is bounded by the shortest instances of
the parts of the schema, of which one token opens two at most (`[{`) in practice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from gptoss_harmony.answer_format import JsonSchema, Source
from gptoss_harmony.shortest_path import PathFinder

_HEADER: Final = 24  # tokens of a header with a recipient, and of the end before it
_MOST_PARTS: Final = 100
_SCALARS: Final = frozenset({"string", "number", "integer", "boolean", "null"})
_LENGTHENING: Final = frozenset({"enum", "const", "pattern", "minLength", "format"})
_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONES: Final = ("items", "additionalProperties")


def largest_commitment(
    sources: Iterable[Source], paths: PathFinder, matcher: Callable[[Source], Any]
) -> int:
    """Return a bound on how much farther the end can be after one more token.

    Args:
        sources: what the texts of the answer obey.
        paths: finds the shortest instance.
        matcher: makes an `llguidance.LLMatcher` for one source alone.
    """
    lengths = [0, 0]
    parts = [part for source in sources for part in _parts(source)]
    for part in parts[:_MOST_PARTS]:
        alone = matcher(part)
        plan = None if alone.is_error() else paths.short(alone)
        if plan is not None:
            lengths.append(len(plan))
    return _HEADER + sum(sorted(lengths)[-2:])


def wanted_words(
    sources: Iterable[Source], paths: PathFinder, matcher: Callable[[Source], Any]
) -> list[bytes]:
    """Return, for each pattern of a schema, the inside of a short text that matches it.

    A pattern without anchors may match anywhere in a text, so nothing leads a search to it. The
    arguments are those of `largest_commitment`.
    """
    schemas = [source.schema for source in sources if isinstance(source, JsonSchema)]
    nodes = [node for schema in schemas for node in (schema, *_everything(schema))]
    patterns = {node["pattern"]: None for node in nodes if isinstance(node.get("pattern"), str)}
    words = []
    for pattern in list(patterns)[:_MOST_PARTS]:
        if not pattern.startswith("^"):  # from the start on, every byte is led
            alone = matcher(JsonSchema({"type": "string", "pattern": f"^({pattern})$"}))
            plan = None if alone.is_error() else paths.short(alone)
            words += [] if plan is None else [paths.text(plan).strip()[1:-1]]
    return words


def _parts(source: Source) -> Iterator[Source]:
    """The source, and for a JSON Schema everything inside it that takes more than two tokens."""
    yield source
    if isinstance(source, JsonSchema):
        root = source.schema
        shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
        yield from (JsonSchema({**shared, **inner}) for inner in _inside(root))


def _inside(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What is inside a schema and takes more than two tokens."""
    for inner in _everything(schema):
        kind = inner.get("type")
        short = isinstance(kind, str) and kind in _SCALARS
        if not short or _LENGTHENING & inner.keys():
            yield inner


def _everything(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All schemas inside a schema."""
    nested: list[Any] = [schema[key] for key in _ONES if key in schema]
    for key in _LISTS:
        nested += schema[key] if isinstance(schema.get(key), list) else []
    for key in _MAPS:
        nested += schema[key].values() if isinstance(schema.get(key), dict) else []
    for inner in nested:
        if isinstance(inner, dict):
            yield inner
            yield from _everything(inner)
