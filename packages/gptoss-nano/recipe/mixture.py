"""Which conversations, how often: draws whole episodes, with history, distractors and dates.

Everything follows from the seed: `episode(random.Random("train 17"), words)` is the same anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from recipe.episode import Episode, Turn
from recipe.render import Document, Renderer
from recipe.tasks import arithmetic, browse, chat, extraction, functions, patch
from recipe.tasks.schemas import tools
from recipe.words import Words

Make = Callable[[random.Random, Words, str], Episode]

# Share of each family in the training data.
TASKS: dict[str, tuple[Make, float]] = {
    "functions": (functions.make, 0.36),
    "python": (arithmetic.make, 0.14),
    "extract": (extraction.make, 0.18),
    "browse": (browse.make, 0.12),
    "patch": (patch.make, 0.08),
    "chat": (chat.make, 0.04),
    "refuse": (chat.refuse, 0.05),
    "repeat": (chat.repeat, 0.03),
}
EFFORTS = ["low", "medium", "medium", "high"]
INSTRUCTIONS = [
    "You are a helpful assistant.",
    "Be brief.",
    "Answer in English.",
    "You are a careful assistant. Use the tools when they help.",
    "Never guess.",
    "Talk like a {w}.",
    "The user works at {w}.",
    "You help the customers of {w}.",
    "Today is a good day. The user's name is {w}.",
]
PAST: list[Make] = [
    chat.make,
    chat.refuse,
    chat.repeat,
    extraction.make,
    functions.make,
    arithmetic.make,
]


@dataclass(frozen=True)
class Drawn:
    """An episode and how it is rendered."""

    episode: Episode
    date: str | None
    keep_analysis: bool
    variant: int  # of the builtin tools' descriptions

    def document(self, renderer: Renderer) -> Document:
        """Tokens and labels."""
        return renderer.document(
            self.episode, date=self.date, keep_analysis=self.keep_analysis, variant=self.variant
        )

    def prompt(self, renderer: Renderer) -> list[int]:
        """Tokens before the model's first action."""
        return renderer.prompt(
            self.episode, date=self.date, keep_analysis=self.keep_analysis, variant=self.variant
        )


def draw(
    rng: random.Random, words: Words, *, task: str | None = None, effort: str | None = None
) -> Drawn:
    """One conversation; `task` and `effort` fix what is otherwise drawn."""
    if task is None:
        task = rng.choices(list(TASKS), [share for _, share in TASKS.values()])[0]
    effort = effort or rng.choice(EFFORTS)
    episode = TASKS[task][0](rng, words, effort)
    if rng.random() < 0.18:
        episode = _with_history(rng, words, episode)
    episode = _with_distractors(rng, words, episode)
    date = f"20{rng.randint(24, 28)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return Drawn(
        episode, date if rng.random() < 0.85 else None, rng.random() < 0.3, rng.randrange(4)
    )


def _with_history(rng: random.Random, words: Words, episode: Episode) -> Episode:
    """Put one or two earlier turns before, made in the same setting."""
    turns: list[Turn] = []
    builtins, offered = set(episode.builtins), list(episode.tools)
    for _ in range(rng.choice([1, 1, 2])):
        past = rng.choice(PAST)(rng, words, episode.effort)
        taken = {tool["name"] for tool in offered}
        clash = any(tool["name"] in taken for tool in past.tools)
        calculates = "declined" in episode.about and "python" in past.builtins
        if past.formats or clash or calculates or len(offered) + len(past.tools) > 5:
            continue
        builtins |= past.builtins
        offered += past.tools
        done = past.turns[-1]
        if done.completions[-1].reply is None:
            turns.append(done)
    return replace(
        episode,
        turns=(*turns, *episode.turns),
        builtins=frozenset(builtins),
        tools=tuple(offered),
    )


def _with_distractors(rng: random.Random, words: Words, episode: Episode) -> Episode:
    """Tools that are not needed, and instructions that change nothing."""
    builtins, offered = set(episode.builtins), list(episode.tools)
    if rng.random() < 0.15 and "declined" not in episode.about:
        builtins.add("python")
    if rng.random() < 0.08 and episode.task != "refuse":
        builtins.add("browser")
    if rng.random() < 0.2 and len(offered) < 3:
        taken = {tool["name"] for tool in offered}
        offered += [tool for tool in tools(rng, words, 1) if tool["name"] not in taken]
    rng.shuffle(offered)
    instructions = episode.instructions
    if instructions is None and rng.random() < 0.3:
        instructions = rng.choice(INSTRUCTIONS).format(w=words.word(rng))
    return replace(
        episode, builtins=frozenset(builtins), tools=tuple(offered), instructions=instructions
    )
