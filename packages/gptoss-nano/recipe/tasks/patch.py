"""A one-file edit through functions.apply_patch; the argument is the raw patch."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

from recipe.episode import (
    Completion,
    Episode,
    Message,
    Text,
    Turn,
    analysis,
    fill,
    final,
    key,
    known,
    lines,
    prose,
    syntax,
    value,
)
from recipe.words import Words

TOOL = {
    "name": "apply_patch",
    "description": "Patch a file",
    "parameters": {
        "type": "string",
        "description": "Formatted patch code",
        "default": "*** Begin Patch\n*** End Patch\n",
    },
}
PRODUCT_SHEET = "product"  # stands for the sheet of gptoss-tools, read when it is drawn
SHEET = """Edit files with functions.apply_patch. Its argument is a patch:

*** Begin Patch
*** Update File: path
@@
-old line
+new line
*** End Patch"""
INSTRUCTIONS = [None, SHEET, SHEET, "You edit files.", "You are a coding assistant.", PRODUCT_SHEET]

CHANGE = [
    "In {f} change {k} from {o} to {n}.",
    "Change {k} to {n} in {f}.",
    "Set {k} to {n} in {f}.",
    "Please edit {f}: {k} should be {n}.",
    "Update {f} so that {k} is {n}.",
    "{k} in {f} must be {n}.",
]
REMOVE = [
    "Remove {k} from {f}.",
    "Delete the line of {k} in {f}.",
    "In {f} remove the line with {k}.",
]
INSERT = [
    "After {k} add {x} = {n} in {f}.",
    "In {f} insert {x} = {n} after {k}.",
    "Add {x} = {n} below {k} in {f}.",
]


def make(rng: random.Random, words: Words, effort: str) -> Episode:
    """A file, a wish, the patch, and the report."""
    path = _path(rng, words)
    sign = rng.choice([" = ", " = ", " = ", "=", ": "])
    entries: dict[str, str] = {}
    for _ in range(rng.randint(1, 7)):
        entries[words.identifier(rng, 2, " -+")] = _setting(rng, words)
    target = rng.choice(list(entries))
    old = _line(target, entries[target], sign)
    kind = rng.choice(["change"] * 6 + ["remove", "insert"])
    fresh, new = words.identifier(rng, 2, " -+"), _setting(rng, words)
    shown = dict(f=key(path), k=key(target), o=value(entries[target]), n=value(new), x=key(fresh))
    if kind == "change":
        wish, hunk = (
            rng.choice(CHANGE),
            [(*syntax("-"), *old), (*syntax("+"), *_line(target, new, sign))],
        )
    elif kind == "remove":
        wish, hunk = rng.choice(REMOVE), [(*syntax("-"), *old)]
    else:
        sign = " = "
        old = _line(target, entries[target], sign)
        wish, hunk = (
            rng.choice(INSERT),
            [(*syntax(" "), *old), (*syntax("+"), *_line(fresh, new, sign))],
        )
    content = lines([_line(k, v, sign) for k, v in entries.items()])
    user = (*fill(wish, **shown), *_shown(rng, path, content))
    head = [syntax("*** Begin Patch"), (*syntax("*** Update File: "), *key(path)), syntax("@@")]
    patch = lines([*head, *hunk, syntax("*** End Patch")])
    high = fill(
        "The user wants an edit of {f}. The line is about {k}. I call apply_patch.",
        f=key(path),
        k=key(target),
    )
    thought = analysis(effort, fill("I patch {f}.", f=key(path)), high)
    call = Message(patch, "commentary", recipient="functions.apply_patch")
    failed = rng.random() < 0.08
    problem = f"Invalid context at {rng.randrange(9)}"
    reply = Message(
        prose(problem if failed else "Done!"),
        "commentary",
        role="tool",
        name="functions.apply_patch",
        recipient="assistant",
    )
    after = analysis(effort, "", "apply_patch returned a result.") if effort == "high" else ()
    answer = (
        fill("The patch failed: {e}.", e=known(problem))
        if failed
        else fill("I edited {f}.", f=key(path))
    )
    completions = (Completion((*thought, call), reply), Completion((*after, final(answer))))
    return Episode(
        "patch",
        effort,
        (Turn(user, completions),),
        tools=(TOOL,),
        instructions=_instructions(rng),
        about={"path": path},
    )


def _instructions(rng: random.Random) -> str | None:
    chosen = rng.choice(INSTRUCTIONS)
    return product_sheet() if chosen == PRODUCT_SHEET else chosen


@lru_cache(maxsize=1)
def product_sheet() -> str:
    """What gptoss-tools tells a model about apply_patch; read from the repository."""
    packages = Path(__file__).parents[3]
    return (packages / "gptoss-tools/src/gptoss_tools/patch/instructions.md").read_text("utf-8")


def _path(rng: random.Random, words: Words) -> str:
    name = f"{words.identifier(rng, 2)}.{rng.choice(['py', 'ini', 'txt', 'cfg', 'toml', 'env'])}"
    return f"{words.identifier(rng, 1)}/{name}" if rng.random() < 0.25 else name


def _setting(rng: random.Random, words: Words) -> str:
    kind = rng.random()
    if kind < 0.55:
        return str(rng.randrange(10 ** rng.choice([1, 2, 3, 4])))
    if kind < 0.8:
        return f'"{words.word(rng)}"'
    return rng.choice(["True", "False"]) if kind < 0.88 else words.word(rng)


def _line(name: str, setting: str, sign: str) -> Text:
    return (*key(name), *syntax(sign), *value(setting))


def _shown(rng: random.Random, path: str, content: Text) -> Text:
    """The file as the user shows it."""
    kind = rng.random()
    if kind < 0.6:
        return (*prose("\n\n```\n"), *content, *prose("\n```"))
    if kind < 0.8:
        return (*prose("\n\n"), *key(path), *prose(":\n```\n"), *content, *prose("\n```"))
    return (*prose("\n\nThe file:\n"), *content)
