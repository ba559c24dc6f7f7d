"""Rows of unlearned tokens: all different, alike within a word, the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gptoss_harmony.nano_rows import (
    VOCABULARY_SIZE,
    expand_rows,
    quantise_rows,
    split_form,
    splitmix64,
    token_codes,
    token_forms,
    token_texts,
    token_words,
)


@pytest.fixture(scope="module")
def ids() -> dict[bytes, int]:
    return {text: token for token, text in enumerate(token_texts())}


def test_all_codes_differ() -> None:
    codes = token_codes()
    assert codes.shape == (VOCABULARY_SIZE, 96)
    assert set(np.unique(codes)) == {-1, 1}
    assert len(np.unique(np.packbits(codes > 0, axis=1), axis=0)) == VOCABULARY_SIZE


def test_forms_of_a_word_share_seven_eighths(ids: dict[bytes, int]) -> None:
    group = np.array([ids[b" get"], ids[b"get"], ids[b".get"], ids[b"_get"]])
    codes = token_codes(group)
    assert (codes[:, :84] == codes[0, :84]).all()
    assert len(np.unique(codes[:, 84:], axis=0)) == 4
    assert len(set(token_words(group).tolist())) == 1
    assert token_forms(group).tolist() == [ord(" "), 0, ord("."), ord("_")]


def test_a_form_is_the_same_direction_for_every_word(ids: dict[bytes, int]) -> None:
    spaced = token_codes(np.array([ids[b" get"], ids[b" Paris"], ids[b" London"]]))
    assert (spaced[:, 84:] == spaced[0, 84:]).all()
    assert abs(int(spaced[1, :84].astype(int) @ spaced[2, :84].astype(int))) < 50


def test_a_subset_has_the_rows_of_the_whole() -> None:
    some = np.array([201_087, 0, 200_012, 1234])
    assert (token_codes(some, size=40) == token_codes(size=40)[some]).all()


def test_hash_values_are_fixed() -> None:
    # The published first outputs of splitmix64 from state 0 are those of the counters 0, 1, ...
    assert splitmix64(np.array([0], np.uint64)).tolist() == [0xE220A8397B1DCDAF]
    assert (token_codes(np.array([0, 200_002]))[:, :8] > 0).astype(int).tolist() == [
        [1, 1, 1, 1, 0, 1, 0, 1],
        [0, 0, 1, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b" Paris", (b" ", b"Paris")),
        (b"Paris", (b"", b"Paris")),
        (b" ", (b"", b" ")),
        (b'",', (b"", b'",')),
        (b" 7", (b" ", b"7")),
        ("é".encode(), (b"", "é".encode())),
        (" é".encode(), (b" ", "é".encode())),
    ],
)
def test_split_form(text: bytes, parts: tuple[bytes, bytes]) -> None:
    assert split_form(text) == parts


@given(arrays(np.float32, (4, 6), elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False)))
def test_quantising_rounds_to_half_a_step_and_is_idempotent(rows: np.ndarray) -> None:
    quantised, exponents = quantise_rows(rows)
    back = expand_rows(quantised, exponents)
    step = np.ldexp(np.float32(1), exponents.astype(np.int32))[:, None]
    assert (np.abs(back - rows) <= step / 2).all()
    assert (np.abs(quantised.astype(int)) <= 127).all()
    assert (expand_rows(*quantise_rows(back)) == back).all()


def test_the_largest_value_uses_the_range() -> None:
    quantised, exponents = quantise_rows(np.array([[127.0, 1.0], [128.0, 0.0], [0, 0]], np.float32))
    assert exponents.tolist() == [0, 1, 0]
    assert quantised.tolist() == [[127, 1], [64, 0], [0, 0]]
