"""JSON extracted from a sentence, with the keys in the request or in a response format."""

from __future__ import annotations

import random
from typing import Any

from recipe.episode import (
    Completion,
    Episode,
    Text,
    Turn,
    analysis,
    fill,
    final,
    join,
    json_text,
    key,
    known,
    prose,
    syntax,
    value,
)
from recipe.tasks.schemas import code, number
from recipe.words import Words

# Kinds of records: how a sentence tells each field. Every sentence is made of clauses about the
# subject (the first field), so that the fields may come in any order and some may be missing.
PERSON = {
    "name": ["{v}"],
    "age": ["is {v} years old", "is {v}", "turned {v}", "is aged {v}"],
    "city": ["lives in {v}", "comes from {v}", "is from {v}", "moved to {v}"],
    "company": ["works at {v}", "works for {v}", "is employed by {v}"],
    "job": ["works as a {v}", "is a {v}", "has a job as {v}"],
    "country": ["was born in the country {v}", "is a citizen of {v}"],
    "email": ["has the email {v}", "can be reached at {v}"],
    "phone": ["has the phone number {v}", "can be called at {v}"],
    "food": ["likes {v}", "enjoys {v}", "loves {v}"],
}
ORDER = {
    "customer": ["{v}"],
    "product": ["ordered the product {v}", "bought {v}", "wants to buy {v}"],
    "quantity": ["asked for {v} pieces", "needs {v} pieces", "took {v} units"],
    "price": ["paid {v} euros", "paid {v} dollars", "paid {v}", "spent {v} dollars"],
    "date": ["came on {v}", "placed the order on {v}"],
    "address": ["wants it sent to {v}", "has the address {v}"],
}
EVENT = {
    "event": ["{v}"],
    "city": ["takes place in {v}", "is held in {v}"],
    "date": ["starts on {v}", "is on {v}"],
    "time": ["begins at {v}", "opens at {v}"],
    "speaker": ["is led by {v}", "features {v}"],
    "price": ["costs {v} euros", "costs {v} dollars", "costs {v}"],
}
RECORDS = [PERSON, PERSON, ORDER, EVENT]
NUMERIC = {"age", "quantity", "price"}
CODED = {"date", "time", "email", "phone"}

ASK = [
    "Extract {k} as JSON: {t}",
    "Extract {k} as JSON.\n\n{t}",
    "Extract {k} from this text as JSON.\n\nText: {t}",
    "Give me {k} as JSON: {t}",
    "{t}\n\nExtract {k} as JSON.",
    "{t} Extract {k} as JSON.",
    "Return a JSON object with {k}.\n\n{t}",
    "Return JSON with the keys {k}: {t}",
    "Turn this into JSON with {k}: {t}",
    "Read the text and answer in JSON with the fields {k}.\n\n{t}",
]
ASK_FORMAT = ["{t}", "{t}", "Extract the data: {t}", "Text: {t}", "Extract the fields.\n\n{t}"]
NOISE = [
    "The weather was fine.",
    "It was a long day.",
    "That is all.",
    "Nothing else is known.",
    "Thank you!",
]


def make(rng: random.Random, words: Words, effort: str) -> Episode:
    """A sentence, the keys that are wanted, and the object."""
    generic = rng.random() < 0.4
    record, sentence = _generic(rng, words) if generic else _natural(rng, words)
    wanted = [name for name in record if rng.random() < 0.8] or list(record)[:1]
    rng.shuffle(wanted)
    data = {name: record[name] for name in wanted}
    formatted = rng.random() < 0.45
    keys = [key(name) for name in wanted]
    if formatted:
        user = fill(rng.choice(ASK_FORMAT), t=sentence)
    else:
        quoted = rng.random() < 0.2
        shown = [(*syntax('"'), *k, *syntax('"')) for k in keys] if quoted else keys
        user = fill(
            rng.choice(ASK), k=join(shown, rng.choice([" and ", ", ", " and "])), t=sentence
        )
    medium = fill("I extract {k}.", k=join(keys, ", "))
    high = fill(
        "The user wants JSON. The keys are {k}. I copy the values from the text.",
        k=join(keys, ", "),
    )
    completion = Completion((*analysis(effort, medium, high), final(json_text(data))))
    return Episode(
        "extract",
        effort,
        (Turn(user, (completion,)),),
        formats=(_format(rng, words, data),) if formatted else (),
        about={"data": data},
    )


def _format(rng: random.Random, words: Words, data: dict[str, Any]) -> dict[str, Any]:
    properties = {}
    for name, item in data.items():
        kind = (
            "integer"
            if isinstance(item, int)
            else "number"
            if isinstance(item, float)
            else "string"
        )
        properties[name] = {"type": "number" if kind == "integer" and rng.random() < 0.3 else kind}
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": list(data)}
    if rng.random() < 0.5:
        schema["additionalProperties"] = False
    name = rng.choice(["data", "record", "answer", words.identifier(rng, 2)])
    description = rng.choice(["", "", "What the text says"])
    return {"name": name, "description": description, "schema": schema}


def _natural(rng: random.Random, words: Words) -> tuple[dict[str, Any], Text]:
    """A record of a known kind in sentences about its subject."""
    kind = rng.choice(RECORDS)
    subject, *others = kind
    chosen = rng.sample(others, rng.randint(1, min(4, len(others))))
    record: dict[str, Any] = {name: _natural_value(rng, words, name) for name in [subject, *chosen]}
    mine = kind is PERSON and rng.random() < 0.15
    clauses = [fill(rng.choice(kind[n]), v=_show(record[n])) for n in chosen]
    if mine:
        clauses = [_first_person(clause) for clause in clauses]
        opening = fill("My name is {s} and ", s=_show(record[subject]))
        return record, (*opening, *join(clauses), *prose("."))
    opener = (
        "The event {s} "
        if kind is EVENT and rng.random() < 0.5
        else rng.choice(["{s} ", "{s} ", "Customer {s} "] if kind is ORDER else ["{s} "])
    )
    sentence = fill(opener, s=_show(record[subject]))
    if rng.random() < 0.3 and len(clauses) > 1:
        pronoun = "It " if kind is EVENT else rng.choice(["She ", "He ", "They "])
        sentence += (*join(clauses[:1]), *prose(". " + pronoun), *join(clauses[1:]), *prose("."))
    else:
        sentence += (*join(clauses), *prose("."))
    return record, _with_noise(rng, sentence)


def _first_person(clause: Text) -> Text:
    """`is 34` -> `I am 34`."""
    (first, label, copied), *rest = clause
    verb, space, tail = first.partition(" ")
    forms = {
        "is": "am",
        "has": "have",
        "was": "was",
        "can": "can",
        "turned": "turned",
        "moved": "moved",
    }
    return (("I " + forms.get(verb, verb[:-1]) + space + tail, label, copied), *rest)


def _natural_value(rng: random.Random, words: Words, name: str) -> Any:
    if name == "age":
        return rng.randint(1, 99)
    if name == "quantity":
        return rng.randrange(1, 10 ** rng.choice([1, 2, 3, 4]))
    if name == "price":
        return abs(number(rng))
    if name == "date":
        return f"{rng.randint(1950, 2049)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    if name == "time":
        return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    if name == "email":
        user, host = words.identifier(rng, 1), words.identifier(rng, 1)
        return f"{user}@{host}.{rng.choice(['com', 'org', 'net'])}"
    if name == "phone":
        return f"{rng.randrange(1000):03d}-{rng.randrange(1000):03d}-{rng.randrange(10000):04d}"
    return words.phrase(rng, 2 if name in {"name", "customer", "speaker"} else 3)


def _generic(rng: random.Random, words: Words) -> tuple[dict[str, Any], Text]:
    """A record with keys that nobody has seen, each named beside its value."""
    record: dict[str, Any] = {}
    for _ in range(rng.choice([1, 2, 2, 3, 3, 4, 5])):
        roll = rng.random()
        item = number(rng) if roll < 0.35 else words.phrase(rng) if roll < 0.9 else code(rng, words)
        record[words.identifier(rng, 2)] = item
    style = rng.choice(
        ["The {k} is {v}", "The {k} is {v}", "{k}: {v}", "{k} = {v}", "the {k} was {v}", "{k} {v}"]
    )
    quoted = rng.random() < 0.3
    pairs = [fill(style, k=key(n), v=_show(v, quoted=quoted)) for n, v in record.items()]
    if "The" in style:
        out: list[Any] = []
        for index, pair in enumerate(pairs):
            out.extend((*pair, *prose("." if index == len(pairs) - 1 else ". ")))
        return record, _with_noise(rng, tuple(out))
    between = rng.choice([", ", "; ", "\n", ", "])
    out = []
    for index, pair in enumerate(pairs):
        out.extend((*prose(between), *pair) if index else pair)
    return record, _with_noise(rng, (*out, *prose(rng.choice([".", ""]))))


def _show(item: Any, *, quoted: bool = False) -> Text:
    if isinstance(item, int | float):
        return known(str(item))
    return (*prose('"'), *value(item), *prose('"')) if quoted else value(item)


def _with_noise(rng: random.Random, sentence: Text) -> Text:
    """Sometimes a sentence beside that says nothing."""
    if rng.random() > 0.2:
        return sentence
    noise = rng.choice(NOISE)
    return (
        (*prose(noise + " "), *sentence) if rng.random() < 0.5 else (*sentence, *prose(" " + noise))
    )
