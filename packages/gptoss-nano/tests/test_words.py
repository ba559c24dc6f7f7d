"""Names: the split holds, and what is drawn can be copied."""

from __future__ import annotations

import random

import pytest
from recipe.lexicon import FAMOUS
from recipe.words import Words, held_out

from gptoss_harmony.encoding import load_encoding


@pytest.fixture(scope="module")
def encode():
    return load_encoding().encode_text


@pytest.mark.parametrize("part", ["train", "held"])
def test_drawn_names_belong_to_their_part(encode, part: str) -> None:
    words, rng = Words(encode, part=part), random.Random(part)
    for _ in range(300):
        for name in (words.word(rng), words.later(rng), words.identifier(rng)):
            assert name in FAMOUS or held_out(name) == (part == "held")


def test_names_look_the_same_after_a_space_and_a_quote(encode) -> None:
    words, rng = Words(encode), random.Random(2)
    for _ in range(300):
        name = words.word(rng)
        assert name in FAMOUS or words.agrees(name)
        assert words.agrees(words.identifier(rng, 2, " -+"), " -+")


def test_agreement_is_about_pieces(encode) -> None:
    words = Words(encode)
    assert words.agrees("Paris")
    assert not words.agrees("Lisbon")  # ` Lisbon` is one token, `Lisbon` is two


def test_training_never_sees_a_held_out_token(encode) -> None:
    words, rng = Words(encode), random.Random(3)
    barred = set(words.held_out_ids().tolist())
    assert len(barred) > 5000
    for _ in range(300):
        name = words.phrase(rng)
        assert not barred & {*encode(name), *encode(" " + name)}


def test_the_same_seed_gives_the_same_names(encode) -> None:
    drawn = []
    for _ in range(2):
        words, rng = Words(encode), random.Random(9)
        drawn.append([words.phrase(rng) for _ in range(50)])
    assert drawn[0] == drawn[1]
