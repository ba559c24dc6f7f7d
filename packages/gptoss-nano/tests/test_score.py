"""The scorer: full marks for a model that is right, none for one that is wrong in any way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe.episode import Completion, Message, final, json_text, prose
from recipe.grade import grade, python_value
from recipe.mixture import TASKS, draw
from recipe.render import CALL, RETURN, Renderer
from recipe.score import missed, play_all, plays, score, summary, table
from recipe.words import Words

from gptoss_harmony.engine import Prompt, Sampling, TokenOutput
from gptoss_harmony.generation import TokenStream


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


ROWS = Path(__file__).parents[1] / "recipe" / "rows.npy"


class Oracle:
    """Knows the right answer to every prompt it will see; `spoil` changes it."""

    def __init__(self, renderer: Renderer, games: Sequence[Any], spoil: int = 0) -> None:
        self.answers: dict[tuple[int, ...], list[int]] = {}
        for game in games:
            seen = list(game.tokens)
            for completion in game.completions:
                tokens = renderer.completion(completion)
                self.answers[tuple(seen)] = tokens[: len(tokens) - spoil]
                if completion.reply is not None:
                    seen += [*tokens, *renderer.reply(completion.reply)]

    def generate(self, prompt: Prompt, sampling: Sampling) -> TokenStream:
        assert sampling.temperature == 0
        stream = TokenStream()
        stream.begin(cached_tokens=0)
        tokens = self.answers[prompt.tokens]
        for token in tokens[:-1]:
            stream.put(TokenOutput(token))
        stream.put(TokenOutput(tokens[-1], finish_reason="stop"))
        return stream


def test_right_answers_get_full_marks(renderer: Renderer) -> None:
    words = Words(renderer.encode, part="held")
    games = plays(renderer, words, list(TASKS), 6, "test")
    play_all(Oracle(renderer, games), renderer, games)
    assert summary(games) == {"conversations": 48, "well_formed": 1.0, "first": 1.0, "all": 1.0}


def test_a_missing_stop_is_not_well_formed(renderer: Renderer) -> None:
    words = Words(renderer.encode, part="held")
    games = plays(renderer, words, list(TASKS), 3, "test")
    play_all(Oracle(renderer, games, spoil=1), renderer, games)
    assert summary(games) == {"conversations": 24, "well_formed": 0.0, "first": 0.0, "all": 0.0}


CALLED = Message(
    json_text({"city": "Lyon", "days": 3}),
    "commentary",
    recipient="functions.f",
    content_type="<|constrain|>json",
)


@pytest.mark.parametrize(
    ("text", "well_formed", "exact"),
    [
        ('{"city":"Lyon","days":3}', True, True),
        ('{"days": 3, "city": "Lyon"}', True, True),
        ('{"city":"Lyon","days":"3"}', True, False),
        ('{"city":"Lyon"}', True, False),
        ('{"city":"Lyon","days":3', True, False),
    ],
)
def test_arguments_are_compared_as_json(
    renderer: Renderer, text: str, well_formed: bool, exact: bool
) -> None:
    written = Message(
        prose(text), "commentary", recipient="functions.f", content_type="<|constrain|>json"
    )
    tokens = renderer.completion(Completion((written,)))
    found = grade(renderer.encoding, tokens, Completion((CALLED,)))
    assert (found.well_formed, found.exact) == (well_formed, exact)


def test_the_wrong_function_or_channel_is_not_exact(renderer: Renderer) -> None:
    for channel, recipient in (("commentary", "functions.g"), ("analysis", "functions.f")):
        written = Message(CALLED.text, channel, recipient=recipient)
        tokens = renderer.completion(Completion((written,)))
        found = grade(renderer.encoding, tokens, Completion((CALLED,)))
        assert (found.well_formed, found.exact) == (True, False)


def test_a_call_that_ends_like_an_answer_is_not_well_formed(renderer: Renderer) -> None:
    tokens = renderer.completion(Completion((CALLED,)))
    assert tokens[-1] == CALL
    found = grade(renderer.encoding, [*tokens[:-1], RETURN], Completion((CALLED,)))
    assert not found.well_formed


def test_thought_is_counted(renderer: Renderer) -> None:
    thought = Message(prose("The user greets me."), "analysis")
    tokens = renderer.completion(Completion((thought, final("Hello!"))))
    found = grade(renderer.encoding, tokens, Completion((final("Hello!"),)))
    assert found.exact
    assert found.thought == len(renderer.encode("The user greets me."))


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("print(37 * 912)", 33_744),
        ("print(7 / 0)", "division by zero"),
        ("print(-2.5 - 1)", -3.5),
        ("37 * 912", None),
        ("print(__import__('os').system('true'))", None),
        ("print(9 ** 9 ** 9)", None),
        ("print(", None),
    ],
)
def test_only_printed_arithmetic_is_run(code: str, value: object) -> None:
    assert python_value(code) == value


def test_the_table_names_every_family_and_missed_bars(renderer: Renderer) -> None:
    class Silent:
        def generate(self, prompt: Prompt, sampling: Sampling) -> TokenStream:
            stream = TokenStream()
            stream.put(TokenOutput(RETURN, finish_reason="stop"))
            return stream

    rows = np.load(ROWS)
    result, games = score(Silent(), rows.tolist(), count=1, tasks=["chat", "functions"])
    assert len(games) == 4
    assert {"chat", "functions"} == set(result["families"])
    assert "| functions | 0.0% | 0.0% | 0.0% | 0.0% / 0.0% |" in table(result)
    assert any(line.startswith("functions: 0.000") for line in missed(result))


def test_inside_and_outside_names_are_what_they_say(renderer: Renderer) -> None:
    rows = set(np.load(ROWS).tolist())
    for inside in (True, False):
        words = Words(renderer.encode, part="held", rows=sorted(rows), inside=inside)
        rng = random.Random(3)
        for _ in range(30):
            for name in (words.word(rng), words.identifier(rng), words.later(rng)):
                tokens = set(renderer.encode(name)) | set(renderer.encode(" " + name))
                assert (tokens <= rows) == inside
    assert draw(random.Random(1), words, task="chat").episode.task == "chat"
