"""Score a model on held-out conversations, free-running and greedy.

`python -m recipe.score nano --engine torch --count 100 --out scores.json`

Every conversation is played as a user would see it: the model writes until it stops, the harmony
parser reads what it wrote, the tool answers (python by running the code), the model goes on from
its own tokens. Names are held out from training and come from the whole vocabulary: once only from
tokens with learned rows (`inside`), once with tokens that were never learned (`outside`).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np

from gptoss_harmony import open_engine
from gptoss_harmony.engine import Engine, Prompt, Sampling
from gptoss_harmony.nano import PackedNano, packed_path
from recipe.grade import Grade, grade
from recipe.mixture import TASKS, Drawn, draw
from recipe.render import Renderer
from recipe.words import Words

MOST_TOKENS = 512
PARTS = ("inside", "outside")  # all names from learned rows, or some token never learned
EFFORTS = ("low", "medium", "high")
# What a family must reach inside the learned rows, and which number of it.
BARS = {
    "functions": ("first", 0.90),
    "python": ("all", 0.90),
    "extract": ("all", 0.90),
    "browse": ("all", 0.80),
    "patch": ("all", 0.80),
    "refuse": ("all", 0.90),
    "chat": ("all", 0.90),
}
WELL_FORMED = 0.95


@dataclass
class Play:
    """A conversation being played."""

    task: str
    drawn: Drawn
    tokens: list[int]
    grades: list[Grade] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether the model still has to act and has made no mistake."""
        done = len(self.grades)
        return done < len(self.completions) and (done == 0 or self.grades[-1].exact)

    @property
    def completions(self) -> tuple[Any, ...]:
        """What the model should do, step by step."""
        return self.drawn.episode.turns[-1].completions


def plays(
    renderer: Renderer, words: Words, tasks: Sequence[str], count: int, seed: str
) -> list[Play]:
    """The conversations of one part, `count` a family, efforts in turn."""
    out = []
    for task in tasks:
        for index in range(count):
            rng = random.Random(f"{seed} {task} {index}")
            drawn = draw(rng, words, task=task, effort=EFFORTS[index % 3])
            tokens = drawn.prompt(renderer)
            out.append(Play(task, drawn, tokens))
    return out


def play_all(engine: Engine, renderer: Renderer, games: Sequence[Play]) -> None:
    """Play to the end, all conversations side by side."""
    while active := [game for game in games if game.running]:
        answers = answer(engine, [game.tokens for game in active])
        for game, tokens in zip(active, answers, strict=True):
            step = len(game.grades)
            expected = game.completions[step]
            game.grades.append(grade(renderer.encoding, tokens, expected))
            if expected.reply is not None:
                follow = renderer.reply(expected.reply)
                game.tokens = [*game.tokens, *tokens, *follow]


def answer(engine: Engine, prompts: Sequence[list[int]]) -> list[list[int]]:
    """What the model writes after each prompt, most likely token by token."""
    sampling = Sampling(max_tokens=MOST_TOKENS, temperature=0.0)
    running = [engine.generate(Prompt(tuple(prompt)), sampling) for prompt in prompts]
    return [[out.token for out in generation if out.token is not None] for generation in running]


def summary(games: Sequence[Play]) -> dict[str, Any]:
    """Rates of one family."""
    grades = [g for game in games for g in game.grades]
    complete = [len(g.grades) == len(g.completions) and g.grades[-1].exact for g in games]
    return {
        "conversations": len(games),
        "well_formed": _rate(g.well_formed for g in grades),
        "first": _rate(game.grades[0].exact for game in games),
        "all": _rate(complete),
    }


def thoughts(games: Sequence[Play]) -> dict[str, float]:
    """Mean tokens of analysis before the first action, by effort."""
    found: dict[str, list[int]] = {effort: [] for effort in EFFORTS}
    for game in games:
        found[game.drawn.episode.effort].append(game.grades[0].thought)
    return {effort: round(sum(counts) / max(1, len(counts)), 2) for effort, counts in found.items()}


def score(
    engine: Engine,
    rows: Sequence[int],
    *,
    count: int,
    tasks: Sequence[str] = tuple(TASKS),
    parts: Sequence[str] = PARTS,
    seed: str = "score",
) -> tuple[dict[str, Any], list[Play]]:
    """Play `count` conversations a family and part; return the numbers and the conversations."""
    renderer = Renderer()
    result: dict[str, Any] = {"count": count, "seed": seed, "families": {}}
    everything: list[Play] = []
    for part in parts:
        words = Words(renderer.encode, part="held", rows=rows, inside=part == "inside")
        games = plays(renderer, words, tasks, count, f"{seed} {part}")
        play_all(engine, renderer, games)
        everything += games
        for task in tasks:
            own = [game for game in games if game.task == task]
            result["families"].setdefault(task, {})[part] = summary(own)
        result[f"well_formed_{part}"] = _rate(g.well_formed for game in games for g in game.grades)
        result[f"thought_{part}"] = thoughts(games)
    result["missed_bars"] = list(missed(result)) if "inside" in parts else []
    return result, everything


def missed(result: dict[str, Any]) -> Iterator[str]:
    """Bars that are not reached, in words."""
    if result["well_formed_inside"] < WELL_FORMED:
        yield f"well-formed: {result['well_formed_inside']:.3f} < {WELL_FORMED}"
    for task, (which, bar) in BARS.items():
        if task in result["families"]:
            reached = result["families"][task]["inside"][which]
            if reached < bar:
                yield f"{task}: {reached:.3f} < {bar}"
    low, medium, high = (result["thought_inside"][effort] for effort in EFFORTS)
    if not low < medium < high:
        yield f"effort: {low}, {medium}, {high} tokens do not grow"


def table(result: dict[str, Any]) -> str:
    """The scores as Markdown, for the card."""
    lines = [
        "| family | first action exact | whole conversation exact | well-formed | same, outside |",
        "|---|---|---|---|---|",
    ]
    for task, parts in result["families"].items():
        inside, outside = parts["inside"], parts["outside"]
        cells = [f"{100 * inside[k]:.1f}%" for k in ("first", "all", "well_formed")]
        other = f"{100 * outside['first']:.1f}% / {100 * outside['all']:.1f}%"
        lines.append(f"| {task} | {' | '.join(cells)} | {other} |")
    for part in ("inside", "outside"):
        lengths = ", ".join(f"{e} {n}" for e, n in result[f"thought_{part}"].items())
        lines.append(f"\nTokens of analysis before the first action ({part}): {lengths}.")
    return "\n".join(lines)


def write_card(path: Path, result: dict[str, Any]) -> None:
    """Renew what stands between the marks of the card."""
    begin, end = "<!-- scores -->", "<!-- /scores -->"
    head, _, rest = path.read_text("utf-8").partition(begin)
    tail = rest.partition(end)[2]
    path.write_text(f"{head}{begin}\n{table(result)}\n{end}{tail}", "utf-8")


def _rate(values: Iterator[bool] | Sequence[bool]) -> float:
    found = list(values)
    return round(sum(found) / len(found), 4) if found else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Score a checkpoint; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="nano, or an `original/` folder")
    parser.add_argument("--engine", default="torch", help="name, or module:Class")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=64, help="conversations at once")
    parser.add_argument("--count", type=int, default=100, help="conversations a family and part")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--rows", type=Path, help="npy of learned rows; default: the packed nano's")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    parser.add_argument("--card", type=Path, help="card whose table of scores is renewed")
    parser.add_argument("--failures", type=Path, help="text file for what went wrong")
    options = parser.parse_args(argv)
    rows = np.load(options.rows) if options.rows else PackedNano.open(packed_path()).read("rows")
    engine = opened(options)
    begun = time.perf_counter()
    result, games = score(engine, rows.tolist(), count=options.count, tasks=options.tasks)
    engine.close()
    result["seconds"] = round(time.perf_counter() - begun, 1)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.card:
        write_card(options.card, result)
    if options.failures:
        options.failures.write_text("\n\n".join(failures(games)))
    sys.stdout.write(table(result) + "\n")
    missing = result["missed_bars"] or "nothing"
    sys.stderr.write(f"{result['seconds']} s; missed: {missing}\n")
    return 1 if result["missed_bars"] else 0


def opened(options: argparse.Namespace) -> Engine:
    """The engine by name, or by `module:Class` where its wheel is not installed."""
    settings = {"device": options.device, "max_batch": options.batch}
    if ":" not in options.engine:
        return open_engine(options.engine, options.checkpoint, **settings)
    engine_class = EntryPoint("engine", options.engine, "gptoss.engines").load()
    engine: Engine = engine_class.open(options.checkpoint, engine_class.Options(**settings))
    return engine


def failures(games: Sequence[Play]) -> Iterator[str]:
    """Each failed step: what was asked, wanted and written."""
    for game in games:
        last = game.grades[-1]
        if not last.exact:
            turn = game.drawn.episode.turns[-1]
            wanted = turn.completions[len(game.grades) - 1].messages[-1].plain
            asked = "".join(piece[0] for piece in turn.user)
            head = f"## {game.task} step {len(game.grades)}"
            yield f"{head}\nuser: {asked}\nwanted: {wanted}\nwrote: {last.text}"


if __name__ == "__main__":
    raise SystemExit(main())
