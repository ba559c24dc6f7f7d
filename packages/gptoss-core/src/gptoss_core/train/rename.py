"""Consistent renaming: the same document with other names, so that copying beats recall.

Copyable tokens of a document (names, values, numbers) are replaced by random ids, the same id
everywhere in the document. A word that exists with and without a leading space (` Paris`, `Paris`)
becomes another such word in the same form, so prose and JSON stay consistent; digits become digits.

```
document   call Anna ( ` Anna`) -> {"name":"Anna"}      `Anna`
renamed    call Lima ( ` Lima`) -> {"name":"Lima"}      `Lima`
```
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What the tokens of one kind may become.

    Attributes:
        inside: (n, forms) ids of trained rows; a half of the draws comes from here.
        all: (m, forms) ids of any row.
    """

    inside: Ids
    all: Ids

    def draw(self, hashes: NDArray[np.uint64], form: Ids) -> Ids:
        """One id per hash, in the given form (a column)."""
        low = hashes >> np.uint64(1)
        if not len(self.inside):
            return self.all[(low % np.uint64(len(self.all))).astype(np.int64), form]
        inside = self.inside[(low % np.uint64(len(self.inside))).astype(np.int64), form]
        anywhere = self.all[(low % np.uint64(len(self.all))).astype(np.int64), form]
        return np.where(hashes & np.uint64(1), inside, anywhere)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamer:
    """Draws new names.

    Attributes:
        kind: int8 (V,), index into `pools` of each token; -1 keeps its name.
        word: int64 (V,), what is renamed together: both forms of a word have one number.
        form: int64 (V,), column of the pool.
        pools: what each kind may become.
    """

    kind: NDArray[np.int8]
    word: Ids
    form: Ids
    pools: tuple[Pool, ...]

    def rename(self, tokens: Ids, document: Ids, copyable: NDArray[np.bool_], *, seed: int) -> Ids:
        """New tokens: `copyable` positions renamed, the same way within one document number.

        Args:
            tokens: (N,) ids.
            document: (N,) number of the document that each token belongs to.
            copyable: (N,) which positions may change.
            seed: another seed gives other names.
        """
        renamed = tokens.copy()
        where = np.flatnonzero(copyable)
        old = tokens[where]
        hashes = _hash(self.word[old], document[where], seed)
        for kind, pool in enumerate(self.pools):
            mine = self.kind[old] == kind
            if mine.any():
                renamed[where[mine]] = pool.draw(hashes[mine], self.form[old[mine]])
        return renamed


def make_renamer(rows: Ids, avoid: Ids) -> Renamer:
    """A renamer over the o200k vocabulary.

    Args:
        rows: ids that are trained.
        avoid: ids that nothing is renamed to: those kept for the held-out documents.
    """
    from gptoss_harmony.nano_rows import token_forms, token_texts, token_words

    texts = token_texts()
    size = len(texts)
    words, forms = token_words()[:size], token_forms()[:size]
    usable = np.ones(size, dtype=bool)
    usable[avoid[avoid < size]] = False
    trained = np.zeros(size, dtype=bool)
    trained[rows[rows < size]] = True
    digits = np.array([text.isdigit() for text in texts])
    lettered = np.array([_is_word(text) for text in texts])

    pairs = _pairs(words, forms, lettered)
    kind = np.where(digits, 1, np.where(forms == 0, 2, 3)).astype(np.int8)
    kind[pairs.ravel()] = 0
    column = np.zeros(size, dtype=np.int64)
    column[pairs[:, 1]] = 1
    word = np.arange(size)
    word[pairs] = pairs[:, :1]

    def pool(ids: Ids) -> Pool:
        ids = ids[usable[ids].all(axis=1)]
        return Pool(inside=ids[trained[ids].all(axis=1)], all=ids)

    singles = (np.flatnonzero((kind == number) & lettered)[:, None] for number in (2, 3))
    numbers = np.flatnonzero(digits)[:, None]
    pools = (pool(pairs), pool(numbers), *(pool(ids) for ids in singles))
    return Renamer(kind=kind, word=word, form=column, pools=pools)


def _pairs(words: Ids, forms: NDArray[np.uint8], lettered: NDArray[np.bool_]) -> Ids:
    """(n, 2): the ids of each word that exists bare and after a space."""
    bare = np.flatnonzero((forms == 0) & lettered)
    spaced = np.flatnonzero((forms == ord(" ")) & lettered)
    _, i, j = np.intersect1d(words[bare], words[spaced], return_indices=True)
    return np.stack([bare[i], spaced[j]], axis=1)


def _is_word(text: bytes) -> bool:
    """Letters and digits only, not all digits, at most one leading space."""
    body = text[1:] if text[:1] == b" " else text
    return bool(body) and not body.isdigit() and all(b >= 128 or chr(b).isalnum() for b in body)


def _hash(token: Ids, owner: Ids, seed: int) -> NDArray[np.uint64]:
    """splitmix64 of (token, owner, seed): equal inputs give equal draws."""
    state: NDArray[np.uint64] = token.astype(np.uint64) + owner.astype(np.uint64) * np.uint64(
        0x9E3779B97F4A7C15
    )
    state += np.uint64(seed % 2**32 * 0xD1B54A32D192ED03 % 2**64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
