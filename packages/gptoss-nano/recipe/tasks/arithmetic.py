"""Arithmetic with two numbers: computed by the python tool, or declined where there is none."""

from __future__ import annotations

import random
import zlib

from recipe.episode import (
    Completion,
    Episode,
    Message,
    Text,
    Turn,
    analysis,
    fill,
    final,
    known,
    prose,
    syntax,
    value,
)
from recipe.words import HELD_OUT_SHARE, Words

REQUESTS = {
    "+": [
        "What is {a} + {b}?",
        "What is {a} plus {b}?",
        "Add {a} and {b}.",
        "Compute {a} + {b}",
        "How much is {a} plus {b}?",
        "What is the sum of {a} and {b}?",
        "{a}+{b}",
        "{a} + {b} = ?",
    ],
    "-": [
        "What is {a} - {b}?",
        "What is {a} minus {b}?",
        "Compute {a} - {b}",
        "How much is {a} minus {b}?",
        "Take {a} and subtract {b}.",
        "{a}-{b}",
        "{a} - {b} = ?",
    ],
    "*": [
        "What is {a} * {b}?",
        "What is {a} times {b}?",
        "Multiply {a} by {b}.",
        "Compute {a} × {b}",
        "How much is {a} times {b}?",
        "What is the product of {a} and {b}?",
        "What is {a} multiplied by {b}?",
        "{a}*{b}",
        "{a} x {b} = ?",
    ],
    "/": [
        "What is {a} / {b}?",
        "What is {a} divided by {b}?",
        "Divide {a} by {b}.",
        "Compute {a} ÷ {b}",
        "How much is {a} divided by {b}?",
        "{a}/{b}",
        "{a} / {b} = ?",
    ],
}
STORIES = {
    "+": [
        "{n} has {a} {t} and gets {b} more. How many {t} does {n} have now?",
        "There are {a} {t} in one box and {b} in another. How many {t} are there in all?",
    ],
    "-": [
        "{n} has {a} {t} and gives away {b}. How many {t} are left?",
        "{n} had {a} {t} and lost {b} of them. How many {t} does {n} still have?",
    ],
    "*": [
        "{n} buys {a} boxes with {b} {t} in each. How many {t} is that?",
        "Each of {a} people has {b} {t}. How many {t} is that in all?",
    ],
    "/": [
        "{n} shares {a} {t} among {b} people. How many {t} does each get?",
        "{a} {t} are packed into {b} equal boxes. How many {t} are in each box?",
    ],
}
ENDINGS = ["", "", "", " Use python.", " Please calculate it.", " Calculate it with python."]
NO_TOOL = "I cannot calculate without the python tool."


def make(rng: random.Random, words: Words, effort: str, *, tool: bool = True) -> Episode:
    """A question, the python call, its output, and the answer."""
    operator = rng.choice("++--***//")
    left, right = _numbers(rng, held=words.held)
    user = _question(rng, words, operator, left, right)
    if not tool:
        return declined(user, effort)
    expression = (*value(left), *syntax(f" {operator} "), *value(right))
    high = fill("The user wants a number. I compute {e}. I call python.", e=expression)
    thought = analysis(effort, fill("I compute {e}.", e=expression), high)
    code = (*syntax("print("), *expression, *syntax(")"))
    call = Message(code, "analysis", recipient="python", content_type="code")
    output, answer = evaluate(left, operator, right)
    reply = Message(
        prose(output + rng.choice(["\n", "\n", ""])),
        "analysis",
        role="tool",
        name="python",
        recipient="assistant",
    )
    after = analysis(effort, "", "python returned a result.") if effort == "high" else ()
    if answer is None:
        closing = prose("The calculation failed: division by zero.")
    else:
        closing = (*expression, *syntax(" = "), *known(answer), *prose("."))
    completions = (Completion((*thought, call), reply), Completion((*after, final(closing))))
    return Episode(
        "python",
        effort,
        (Turn(user, completions),),
        builtins=frozenset({"python"}),
        about={"left": left, "operator": operator, "right": right},
    )


def declined(user: Text, effort: str) -> Episode:
    """The answer where no tool can calculate."""
    thought = analysis(
        effort,
        "I have no python tool.",
        "The user wants a number. I cannot calculate on my own. I have no python tool.",
    )
    turn = Turn(user, (Completion((*thought, final(NO_TOOL))),))
    return Episode("refuse", effort, (turn,), about={"declined": "python"})


def evaluate(left: str, operator: str, right: str) -> tuple[str, str | None]:
    """What `print(left operator right)` prints, and the number in it (None after an error)."""
    a, b = (float(x) if "." in x else int(x) for x in (left, right))
    if operator == "/" and b == 0:
        trace = 'Traceback (most recent call last):\n  File "<stdin>", line 1, in <module>\n'
        return trace + "ZeroDivisionError: division by zero", None
    number = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}
    text = str(number[operator]())
    return text, text


def _numbers(rng: random.Random, *, held: bool) -> tuple[str, str]:
    """Two operands; pairs of the held-out sixteenth only where asked."""
    while True:
        pair = _operand(rng), _operand(rng)
        if (zlib.crc32(" ".join(pair).encode()) % HELD_OUT_SHARE == 0) == held:
            return pair


def _operand(rng: random.Random) -> str:
    whole = str(rng.randrange(10 ** rng.choice([1, 2, 2, 3, 3, 4, 5, 6, 8])))
    if rng.random() < 0.15:
        return f"{whole}.{rng.randrange(10)}{rng.choice(['', '5', '25'])}"
    return whole


def _question(rng: random.Random, words: Words, operator: str, left: str, right: str) -> Text:
    if rng.random() < 0.3:
        template = rng.choice(STORIES[operator])
        thing = value(words.word(rng))
        person = value(words.word(rng))
        return fill(template, a=known(left), b=known(right), n=person, t=thing)
    template = rng.choice(REQUESTS[operator]) + rng.choice(ENDINGS)
    return fill(template, a=known(left), b=known(right))
