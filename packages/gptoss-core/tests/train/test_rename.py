from __future__ import annotations

import numpy as np
import pytest

from gptoss_core.train.rename import Renamer, make_renamer
from gptoss_harmony.encoding import load_encoding


@pytest.fixture(scope="module")
def renamer() -> Renamer:
    return make_renamer(np.arange(20_000), np.arange(5_000, 6_000))


def test_names_change_alike_within_a_document_only(renamer: Renamer) -> None:
    tokens = np.array(load_encoding().encode_text("Paris Paris Rome Paris Rome"))
    twice = np.concatenate([tokens, tokens])
    document = np.repeat([0, 1], len(tokens))
    renamed = renamer.rename(twice, document, np.ones(len(twice), dtype=bool), seed=1)
    first, second = np.split(renamed, 2)
    assert not np.array_equal(first, second)
    for part in (first, second):
        same_before = tokens[:, None] == tokens
        assert np.array_equal(part[:, None] == part, same_before)


def test_both_forms_of_a_word_stay_one_word(renamer: Renamer) -> None:
    encoding = load_encoding()
    [spaced], [bare] = encoding.encode_text(" Paris"), encoding.encode_text("Paris")
    for seed in range(50):
        tokens = np.array([spaced, bare])
        a, b = renamer.rename(tokens, np.zeros(2, int), np.ones(2, bool), seed=seed)
        assert encoding.token_bytes[a] == b" " + encoding.token_bytes[b]


def test_only_copyable_tokens_change_and_held_out_names_are_never_drawn(renamer: Renamer) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 190_000, 20_000)
    copyable = rng.random(20_000) < 0.5
    renamed = renamer.rename(tokens, np.arange(20_000), copyable, seed=3)
    assert np.array_equal(renamed[~copyable], tokens[~copyable])
    changed = renamed != tokens
    assert changed[copyable].mean() > 0.9
    assert not ((renamed[changed] >= 5_000) & (renamed[changed] < 6_000)).any()


def test_digits_become_digits(renamer: Renamer) -> None:
    encoding = load_encoding()
    tokens = np.array(encoding.encode_text("123 7 45"))
    digits = np.array([encoding.token_bytes[t].isdigit() for t in tokens])
    renamed = renamer.rename(tokens, np.zeros(len(tokens), int), digits, seed=0)
    assert all(encoding.token_bytes[t].isdigit() for t in renamed[digits])
