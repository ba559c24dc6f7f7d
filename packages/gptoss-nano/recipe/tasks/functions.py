"""A request that names a function and its arguments in words; the call; what the function said."""

from __future__ import annotations

import random
from typing import Any

from recipe.episode import (
    Completion,
    Episode,
    Message,
    Text,
    Turn,
    analysis,
    fill,
    final,
    join,
    json_text,
    key,
    known,
    lines,
    prose,
    syntax,
    value,
)
from recipe.tasks.schemas import number, tools
from recipe.words import Words

TRUE = ["true", "on", "yes"]
FALSE = ["false", "off", "no"]

REQUESTS = [
    "Call {f} with {a}.",
    "Please call {f} with {a}.",
    "Use {f} with {a}.",
    "Use the function {f} with {a}",
    "Run {f} with {a}, please.",
    "I need {f} with {a}.",
    "Can you call {f}? Use {a}.",
    "{f}: {a}",
    "I want you to run {f}. Take {a}.",
    "Try {f} with {a}",
    "Invoke {f} for me: {a}.",
    "With {a}, call {f}.",
    "Hi! Could you use {f} with {a}? Thanks.",
]
BARE = ["Call {f}.", "Please run {f}.", "Use {f}", "Can you call {f}?", "{f} please"]


def make(rng: random.Random, words: Words, effort: str) -> Episode:
    """An episode of a call and the answer that follows the function's reply."""
    offered = tools(rng, words, rng.choice([1, 1, 2, 2, 3, 4]))
    chosen = rng.choice(offered)
    arguments = _arguments(rng, words, chosen)
    user = request(rng, chosen["name"], arguments)
    thought = thoughts(effort, chosen["name"], list(arguments))
    call = Message(
        json_text(arguments),
        "commentary",
        recipient=f"functions.{chosen['name']}",
        content_type="<|constrain|>json",
    )
    reply, answer = result(rng, words)
    returned = Message(reply, "commentary", role="tool", name=call.recipient, recipient="assistant")
    after = analysis(effort, "", f"{chosen['name']} returned a result.") if effort == "high" else ()
    completions = (Completion((*thought, call), returned), Completion((*after, final(answer))))
    if rng.random() < 0.25:
        completions = completions[:1]
    return Episode(
        "functions",
        effort,
        (Turn(user, completions),),
        tools=tuple(offered),
        about={"arguments": arguments},
    )


def _arguments(rng: random.Random, words: Words, chosen: dict[str, Any]) -> dict[str, Any]:
    """Arguments in a random order, optional ones present half of the time."""
    from recipe.tasks.schemas import value_for

    schema = chosen["parameters"] or {"properties": {}, "required": []}
    given = [n for n in schema["properties"] if n in schema["required"] or rng.random() < 0.5]
    rng.shuffle(given)
    return {name: value_for(rng, words, schema["properties"][name]) for name in given}


def request(rng: random.Random, function: str, arguments: dict[str, Any]) -> Text:
    """What the user asks."""
    spoken = "_" in function and rng.random() < 0.1  # `get user info` for get_user_info
    name = key(function.replace("_", " ") if spoken else function)
    if not spoken and rng.random() < 0.15:
        name = (*syntax("`"), *name, *syntax("`"))
    if not arguments:
        return fill(rng.choice(BARE), f=name)
    style = rng.choice([" ", " ", " = ", ": ", " is ", " set to ", "="])
    quote = rng.random() < 0.4
    pairs = [_pair(rng, n, v, style, quote=quote) for n, v in arguments.items()]
    if rng.random() < 0.12:
        items = lines([(*prose("- "), *pair) for pair in pairs])
        return fill(
            rng.choice(["Call {f} with:\n{a}", "{f}\n{a}", "Use {f}:\n{a}"]), f=name, a=items
        )
    return fill(rng.choice(REQUESTS), f=name, a=join(pairs, rng.choice([" and ", ", ", " and "])))


def _pair(rng: random.Random, name: str, item: Any, style: str, *, quote: bool) -> Text:
    """One argument in words: `city "Paris"`, `days = 3`, `verbose on`."""
    if isinstance(item, dict):
        inner = [_pair(rng, n, v, style, quote=quote) for n, v in item.items()]
        return (*key(name), *prose(" ("), *join(inner, ", "), *prose(")"))
    spoken = name.replace("_", " ") if rng.random() < 0.08 else name
    return (*key(spoken), *prose(style), *said(rng, item, quote=quote))


def said(rng: random.Random, item: Any, *, quote: bool) -> Text:
    """A value as a user writes it."""
    if isinstance(item, bool):
        return known(rng.choice(TRUE if item else FALSE))
    if isinstance(item, int | float):
        return value(str(item))
    if isinstance(item, list):
        return (*prose("["), *join([said(rng, v, quote=quote) for v in item], ", "), *prose("]"))
    return (*prose('"'), *value(item), *prose('"')) if quote else value(item)


def thoughts(effort: str, function: str, names: list[str]) -> tuple[Message, ...]:
    """What the model thinks before the call."""
    high = fill("The user wants {f}. ", f=key(function))
    if names:
        high += fill("The arguments are {a}. ", a=join([key(n) for n in names], ", "))
    else:
        high += prose("It needs no arguments. ")
    return analysis(
        effort, fill("I call {f}.", f=key(function)), high + fill("I call {f}.", f=key(function))
    )


def result(rng: random.Random, words: Words) -> tuple[Text, Text]:
    """What a function returns, and the answer made of it."""
    kind = rng.random()
    if kind < 0.55:
        data: dict[str, Any] = {}
        for _ in range(rng.choice([1, 1, 2, 3])):
            name = words.identifier(rng, 2)
            data[name] = rng.choice([number(rng), words.phrase(rng, 2), words.phrase(rng, 2)])
        pairs = [fill("{k} is {v}", k=key(n), v=value(str(v))) for n, v in data.items()]
        return json_text(data), (*prose("The result: "), *join(pairs, ", "), *prose("."))
    if kind < 0.65:
        problem = words.phrase(rng)
        return json_text({"error": problem}), fill("The call failed: {e}.", e=value(problem))
    text = value(words.phrase(rng) if kind < 0.85 else str(number(rng)))
    return text, (*prose("The result: "), *text, *prose("."))
