"""Random function tools and the arguments of a call to one of them."""

from __future__ import annotations

import random
from typing import Any

from recipe.lexicon import PARAMETERS
from recipe.words import Words


def names(rng: random.Random, words: Words, count: int) -> list[str]:
    """Distinct parameter names."""
    found: list[str] = []
    while len(found) < count:
        common = rng.random() < (0.1 if words.held else 0.4)
        name = rng.choice(PARAMETERS) if common else words.identifier(rng, 2)
        if name not in found:
            found.append(name)
    return found


def number(rng: random.Random) -> int | float:
    """A number of one to seven digits, sometimes with decimals or a sign."""
    kind = rng.random()
    whole = rng.randrange(10 ** rng.choice([1, 2, 2, 3, 3, 4, 5, 7]))
    if kind < 0.8:
        return whole
    if kind < 0.93:
        return float(
            f"{whole % 10000}.{rng.randrange(1, 10 ** rng.choice([1, 2]))}".rstrip("0") + "5"
        )
    return -whole if whole else 0


def property_(
    rng: random.Random, words: Words, name: str, *, nested: bool = True
) -> dict[str, Any]:
    """The JSON Schema of one parameter."""
    kind = rng.random()
    schema: dict[str, Any]
    if kind < 0.42:
        schema = {"type": "string"}
    elif kind < 0.62:
        schema = {"type": rng.choice(["number", "integer"])}
    elif kind < 0.72:
        schema = {"type": "boolean"}
    elif kind < 0.84:
        choices = {words.word(rng) for _ in range(rng.randint(2, 4))}
        schema = {"type": "string", "enum": sorted(choices)}
    elif kind < 0.93 or not nested:
        schema = {"type": "array", "items": {"type": rng.choice(["string", "string", "number"])}}
    else:
        inner = [n for n in names(rng, words, 2) if n != name]
        schema = {
            "type": "object",
            "properties": {n: {"type": rng.choice(["string", "number"])} for n in inner},
            "required": inner,
        }
    if rng.random() < 0.3:
        schema["description"] = f"The {name.replace('_', ' ')}" + rng.choice(["", " to use", "."])
    return schema


def value_for(rng: random.Random, words: Words, schema: dict[str, Any]) -> Any:
    """A value that a property admits."""
    kind = schema["type"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if kind == "string":
        return words.phrase(rng) if rng.random() < 0.85 else code(rng, words)
    if kind == "integer":
        return int(number(rng))
    if kind == "number":
        return number(rng)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "array":
        return [value_for(rng, words, schema["items"]) for _ in range(rng.randint(1, 4))]
    return {name: value_for(rng, words, item) for name, item in schema["properties"].items()}


def code(rng: random.Random, words: Words) -> str:
    """A string that is no word: a date, an identifier, a file name, an address."""
    kind = rng.randrange(5)
    if kind == 0:
        return f"{rng.randint(1950, 2049)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    if kind == 1:
        return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    if kind == 2:
        return f"{words.word(rng)}-{rng.randrange(1000)}"
    if kind == 3:
        return f"{words.identifier(rng, 1)}@{words.identifier(rng, 1)}.com"
    return f"{words.identifier(rng, 2)}.{rng.choice(['txt', 'csv', 'py', 'json', 'md'])}"


def tool(rng: random.Random, words: Words, *, most: int = 4) -> dict[str, Any]:
    """A function tool: name, description, parameters with some of them optional."""
    name = words.identifier(rng)
    keys = names(rng, words, rng.choice([0, 1, 1, 2, 2, 3, most]))
    properties = {key: property_(rng, words, key) for key in keys}
    required = [key for key in keys if rng.random() < 0.7]
    verb = rng.choice(["Returns", "Gets", "Finds", "Sets", "Runs", "Makes", "Sends"])
    about = rng.choice([name.replace("_", " "), words.word(rng), "the " + words.word(rng)])
    parameters = {"type": "object", "properties": properties, "required": required}
    return {
        "name": name,
        "description": f"{verb} {about}" + rng.choice(["", "."]),
        "parameters": parameters if keys or rng.random() < 0.5 else None,
    }


def tools(rng: random.Random, words: Words, count: int) -> list[dict[str, Any]]:
    """Distinct function tools."""
    found: dict[str, dict[str, Any]] = {}
    while len(found) < count:
        made = tool(rng, words, most=4 if count < 3 else 3)
        found.setdefault(made["name"], made)
    return list(found.values())
