"""The embedding rows of tokens that nano never learned, computed from the token's text.

A small model cannot store 201,088 learned rows in 16 MB, and it need not: to copy a name it only
has to tell tokens apart. Every token has a code of ±1 signs

    code = [ hash(word) : 7/8 of the code | hash(form) : 1/8 of the code ]

where the form is one leading character that is no letter or digit (a space, `.`, `_`, ...) and the
word is the rest. ` Paris` in a sentence, `Paris` in JSON and `.Paris` in a header therefore share
seven eighths of their code and differ by a direction that is the same for every word: a model that
learned to change the form of one word can change the form of all, also of words it never saw.

A token outside the learned set has the embedding row `[code | 0 | 0] * input_scale` and the
unembedding row `[0 | code | 0] * output_scale`. Rows of learned tokens are stored as int8 with one
power-of-two scale a row, which bf16 holds exactly.

    >>> token_codes(np.array([100, 200_002]), size=96).shape
    (2, 96)
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

VOCABULARY_SIZE = 201_088
FORM_SHARE = 8  # one eighth of a code tells the form, the rest tells the word
CODE_SIZE = 96
_FORM_OFFSET = 1 << 32  # forms are hashed away from words


def token_texts() -> list[bytes]:
    """Return the bytes of the ordinary tokens 0..199,997, in order of their ids."""
    name = resources.files("gptoss_harmony") / "vocabulary" / "o200k_base.tiktoken"
    lines = name.read_bytes().splitlines()
    return [base64.b64decode(line.split()[0]) for line in lines]


def split_form(text: bytes) -> tuple[bytes, bytes]:
    """Split a token into its form (at most one leading ASCII non-alphanumeric) and its word.

    >>> split_form(b" Paris"), split_form(b"Paris"), split_form(b'",')
    ((b' ', b'Paris'), (b'', b'Paris'), (b'', b'",'))
    """
    if len(text) > 1 and text[0] < 128 and not text[:1].isalnum() and _starts_a_word(text[1]):
        return text[:1], text[1:]
    return b"", text


def _starts_a_word(byte: int) -> bool:
    """Whether a byte is a letter or digit, or part of a letter beyond ASCII."""
    return byte >= 128 or chr(byte).isalnum()


@lru_cache(maxsize=1)
def _words_and_forms() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return for each id the number of its word and of its form.

    The number of a word is the smallest id that spells it; ids beyond the ordinary tokens
    (specials and reserved rows) are words of their own without a form.
    """
    words = np.arange(VOCABULARY_SIZE, dtype=np.uint64)
    forms = np.zeros(VOCABULARY_SIZE, dtype=np.uint64)
    first: dict[bytes, int] = {}
    for token, (form, word) in enumerate(_split_all()):
        words[token] = first.setdefault(word, token)
        forms[token] = form[0] if form else 0
    return words, forms


def _split_all() -> Iterator[tuple[bytes, bytes]]:
    return (split_form(text) for text in token_texts())


def token_words(ids: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
    """Return for each id the smallest id that spells the same word in any form, int64 (n,)."""
    words = _words_and_forms()[0].astype(np.int64)
    return words if ids is None else words[ids]


def token_forms(ids: NDArray[np.integer] | None = None) -> NDArray[np.uint8]:
    """Return for each id the byte of its leading character, 0 where it has none, uint8 (n,)."""
    forms = _words_and_forms()[1].astype(np.uint8)
    return forms if ids is None else forms[ids]


def token_codes(
    ids: NDArray[np.integer] | None = None, *, size: int = CODE_SIZE
) -> NDArray[np.int8]:
    """Return the ±1 codes of `ids` (of all 201,088 by default), int8 (n, size).

    The signs are bits of splitmix64 over the word's and the form's number, so they are the same on
    every machine and in every version.
    """
    words, forms = _words_and_forms()
    if ids is not None:
        words, forms = words[ids], forms[ids]
    form_size = size // FORM_SHARE
    numbers, place = np.unique(forms, return_inverse=True)
    form_codes = _signs(numbers + np.uint64(_FORM_OFFSET), form_size)
    return np.concatenate([_signs(words, size - form_size), form_codes[place.reshape(-1)]], axis=1)


def _signs(numbers: NDArray[np.uint64], width: int) -> NDArray[np.int8]:
    """Return `width` pseudo-random signs for each number, int8 (n, width)."""
    count = -(-width // 64)
    counters = np.multiply(numbers[:, None], np.uint64(count), dtype=np.uint64)
    counters = counters + np.arange(count, dtype=np.uint64)
    octets = splitmix64(counters).astype("<u8").view(np.uint8).reshape(len(numbers), -1)
    bits = np.unpackbits(octets, axis=1, bitorder="little")[:, :width]
    return np.where(bits, 1, -1).astype(np.int8)


def splitmix64(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers (Steele, Lea and Flood, 2014, "Fast splittable PRNGs")."""
    state = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # wraps modulo 2**64
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def quantise_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Round rows to `q * 2**exponent` with |q| <= 127 and the smallest exponent that fits.

    Args:
        rows: float32 (n, H).

    Returns:
        q, int8 (n, H), rounded half to even; exponents, int8 (n,), 0 for a row of zeros.
    """
    largest = np.abs(rows).max(axis=1)
    mantissa, exponent = np.frexp(largest / np.float32(127))  # largest/127 = mantissa * 2**exponent
    exponent = np.where(mantissa == 0.5, exponent - 1, exponent)
    exponent = np.where(largest == 0, 0, exponent).astype(np.int8)
    return np.rint(np.ldexp(rows, -exponent[:, None].astype(np.int32))).astype(np.int8), exponent


def expand_rows(quantised: NDArray[np.int8], exponents: NDArray[np.int8]) -> NDArray[np.float32]:
    """Undo `quantise_rows`: float32 (n, H), each value exactly representable in bf16."""
    return np.ldexp(quantised.astype(np.float32), exponents[:, None].astype(np.int32))
