"""Names drawn from the whole vocabulary, split into a training part and a held-out part.

A name can be copied only token by token, and the vocabulary writes ` Paris` in a sentence and
`Paris` in JSON with different tokens. `agrees` tells whether a name has the same pieces in both
places up to the form of the first; most names that are drawn here do.

The split is by the name itself: a name whose hash falls into the held-out sixteenth is never drawn
for training, and never the target of a renaming in the trainer.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from gptoss_harmony.nano_rows import token_forms, token_texts, token_words
from recipe.lexicon import FAMOUS, FAMOUS_FAMILY, STOP_WORDS, taught

Encode = Callable[[str], list[int]]

HELD_OUT_SHARE = 16
SHORTEST_HELD_OUT = 4  # shorter tokens are pieces of everything
LEARNED_BELOW = 10_000  # single-token names below this id mostly have a learned row


def held_out(name: str) -> bool:
    """Whether a name belongs to the held-out sixteenth; short and taught words never do."""
    folded = name.casefold()
    if zlib.crc32(folded.encode()) % HELD_OUT_SHARE or len(name) < SHORTEST_HELD_OUT:
        return False
    return not all(part in taught() for part in folded.split("_"))


class Words:
    """Draws names; everything follows from the random generator that is passed in.

    Args:
        encode: ordinary tokenisation of a text.
        part: "train" or "held".
        rows: ids with a learned row. Given together with `inside`, restricts all names to learned
            rows (True) or gives every name at least one token without (False).
    """

    def __init__(
        self,
        encode: Encode,
        *,
        part: str = "train",
        rows: Sequence[int] | None = None,
        inside: bool | None = None,
    ) -> None:
        self.encode = encode
        self.held = part == "held"
        self.rows = frozenset(int(row) for row in rows) if rows is not None else frozenset()
        self.inside = inside
        self.texts = token_texts()
        self.barred = frozenset(self.held_out_ids().tolist())
        words, forms = token_words(), token_forms()
        self.word_of = words
        spaced = set(words[: len(self.texts)][forms[: len(self.texts)] == ord(" ")].tolist())
        bare, twins, tails = [], [], []
        for token, text in enumerate(self.texts):
            word = _letters(text)
            if word is None or word.casefold() in STOP_WORDS:
                continue
            if held_out(word) and not self.held:
                continue
            bare.append(token)
            if int(words[token]) in spaced and len(word) > 1:
                twins.append(token)
            if word.islower() and len(word) > 1:
                tails.append(token)
        self.bare = np.array(bare)
        self.twins = np.array(twins)
        self.ascii_twins = np.array([t for t in twins if self.texts[t].isascii()])
        self.tails = np.array(tails)
        self.ascii_tails = np.array([t for t in tails if self.texts[t].isascii()])
        self.spaced = np.array([t for t, text in enumerate(self.texts) if self._may_follow(text)])

    def _may_follow(self, text: bytes) -> bool:
        """Whether a token is a space and a word of this part."""
        word = _letters(text[1:]) if text[:1] == b" " else None
        return bool(word) and (self.held or not held_out(str(word)))

    def agrees(self, name: str, before: str = " ") -> bool:
        """Whether the name has the same pieces after each character of `before` as on its own.

        Its first piece may be another form of the same word, or stand after the character as it is.
        """
        bare = self.encode(name)
        for mark in before:
            marked = self.encode(mark + name)
            whole = len(marked) == len(bare) and self.word_of[marked[0]] == self.word_of[bare[0]]
            if not (whole and marked[1:] == bare[1:]) and marked != [*self.encode(mark), *bare]:
                return False
        return True

    def admits(self, name: str) -> bool:
        """Whether the name is in this part, allowed as a name, and inside or outside as asked."""
        if held_out(name) != self.held or name.casefold() in STOP_WORDS:
            return False
        tokens = set(self.encode(name)) | set(self.encode(" " + name))
        if not self.held and tokens & self.barred:
            return False
        if self.inside is None:
            return True
        return (tokens <= self.rows) == self.inside

    def _draw(self, propose: Callable[[], str], before: str = " ") -> str:
        for _ in range(100_000):
            name = propose()
            famous = name in FAMOUS and not self.held
            if famous or (self.admits(name) and self.agrees(name, before)):
                return name
        raise ValueError("no name of this part can be made; check rows and part")

    def _pick(self, rng: random.Random, pool: np.ndarray) -> str:
        """One token of a pool (sorted by id) as text; half of the draws from the common ids."""
        stop = len(pool)
        if self.inside or (self.inside is None and rng.random() < 0.5):
            stop = int(np.searchsorted(pool, LEARNED_BELOW))
        return self.texts[int(pool[rng.randrange(stop)])].decode()

    def word(self, rng: random.Random) -> str:
        """A name of one word, one to three tokens long, that can stand after a space or a quote."""

        def propose() -> str:
            kind = rng.random()
            if kind < 0.12 and not self.held:
                return rng.choice(FAMOUS)
            first = self._pick(rng, self.twins)
            if kind < 0.55:
                return first
            second = first + self._pick(rng, self.tails)
            return second if kind < 0.9 else second + self._pick(rng, self.tails)

        return self._draw(propose)

    def later(self, rng: random.Random) -> str:
        """A word that only ever stands after a space: the second word of a name."""

        def propose() -> str:
            if not self.held and rng.random() < 0.15:
                return rng.choice(FAMOUS_FAMILY)
            first = self._pick(rng, self.spaced)[1:]
            return first if rng.random() < 0.5 else first + self._pick(rng, self.tails)

        for _ in range(100_000):
            name = propose()
            if self.admits(name):
                return name
        raise ValueError("no name of this part can be made; check rows and part")

    def phrase(self, rng: random.Random, most: int = 3) -> str:
        """A name of one to `most` words."""
        count = rng.choice([1, 1, 2, 2, 3][: 2 * most - 1])
        return " ".join([self.word(rng), *(self.later(rng) for _ in range(count - 1))])

    def identifier(self, rng: random.Random, most: int = 3, before: str = " ") -> str:
        """A snake_case identifier of one to `most` parts, the same after `before`; see `agrees`."""

        def propose() -> str:
            count = rng.choice([1, 1, 2, 2, 3][: 2 * most - 1])
            parts = [self._pick(rng, self.ascii_twins).lower() for _ in range(count)]
            for place in range(count):
                # Single learned words are never held out, so a held-out name needs two pieces.
                if rng.random() < 0.3 or (self.held and self.inside and place == 0):
                    parts[place] += self._pick(rng, self.ascii_tails)
            return "_".join(parts)

        return self._draw(propose, before)

    def held_out_ids(self) -> np.ndarray:
        """Ids that are held-out names on their own, in any form, int64 sorted.

        A piece of a taught word is none, even if it looks like a held-out name.
        """
        pieces = {
            piece
            for word in taught()
            for spelt in (word, word.capitalize(), word.upper())
            for piece in (*self.encode(spelt), *self.encode(" " + spelt))
        }
        held = [t for t, text in enumerate(self.texts) if _is_held_out(text)]
        return np.array([token for token in held if token not in pieces])


def _is_held_out(text: bytes) -> bool:
    """Whether a token is a held-out name, perhaps after one other character."""
    word = _letters(text) or _letters(text[1:])
    return bool(word) and word.casefold() not in STOP_WORDS and held_out(str(word))


def _letters(text: bytes) -> str | None:
    """The text of a token that consists of letters only, else None."""
    try:
        word = text.decode()
    except UnicodeDecodeError:
        return None
    return word if word.isalpha() else None
