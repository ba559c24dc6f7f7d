"""The shortest way to complete a constrained answer from where it stands.

Two searches over single bytes and markers. The first follows what usually closes a text soonest
(`}` before `"` before `,`) and turns aside where that leads nowhere or in circles; the second goes
breadth first, within a limit, for something shorter. Of states that allow the same tokens after
the same number of bytes, one is followed. The bytes found are then written with the tokens that
the model itself would use for them.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gptoss_harmony import tokens as special

if TYPE_CHECKING:
    from gptoss_harmony.encoding import Encoding

_FORCED_MARKER: Final = re.compile(rb"\xff\[([0-9]+)\]")
_CLOSERS: Final = b'}]",:0123456789tnf[{-'  # earlier closes sooner
_TURN: Final = 16  # the cost of not taking the first choice; being where one was before costs 1
_BLANKS: Final = b" \t\n\r"
_FREE: Final = 72  # where more bytes than this are allowed, they are the inside of a text
_FIRST_LIMIT: Final = 4_000  # states
_SECOND_LIMIT: Final = 300

Step = bytes | int  # plain bytes, or a special token


class PathFinder:
    """Finds completions for the matchers of one encoding.

    Args:
        encoding: from `load_encoding`.
        words: bytes worth trying inside a text that may not end yet, such as what a pattern that
            may match anywhere wants to see; letter by letter they would not be found.
    """

    def __init__(self, encoding: Encoding, *, words: Sequence[bytes] = ()) -> None:
        self._encoding = encoding
        self._words = list(words)
        table = encoding.token_bytes
        singles = {
            table[token]: token for token in range(special.FIRST_SPECIAL) if len(table[token]) == 1
        }
        self._byte_token = [singles[bytes([value])] for value in range(256)]
        self._order = [*_CLOSERS, *(value for value in range(256) if value not in _CLOSERS)]
        self._ordered_tokens = np.array([self._byte_token[value] for value in self._order])

    def with_words(self, words: Sequence[bytes]) -> PathFinder:
        """The same, with other words."""
        other = copy.copy(self)
        other._words = list(words)
        return other

    def text(self, tokens: Sequence[int]) -> bytes:
        """The bytes of tokens that `short` returned."""
        return self._encoding.decode_bytes(tokens)

    def short(self, matcher: Any) -> list[int] | None:
        """Return tokens that complete the answer, usually few; None if none were found.

        Args:
            matcher: an `llguidance.LLMatcher`; it is not changed.
        """
        path = self._search(matcher, by_length=False, limit=_FIRST_LIMIT)
        if path is None:
            path = self._search(matcher, by_length=False, limit=_FIRST_LIMIT, thorough=True)
        return None if path is None else self._as_tokens(matcher, path)

    def shortest(self, matcher: Any, known: list[int]) -> list[int]:
        """Return the fewest tokens found that complete the answer; takes tens of milliseconds.

        Args:
            matcher: an `llguidance.LLMatcher`; it is not changed.
            known: what `short` found, returned if nothing is shorter.
        """
        path = self._search(matcher, by_length=True, limit=_SECOND_LIMIT)
        return known if path is None else min(self._as_tokens(matcher, path), known, key=len)

    def _search(
        self, matcher: Any, *, by_length: bool, limit: int, thorough: bool = False
    ) -> list[Step] | None:
        """Best-first search; the cost is bytes written, or turns away from the closing byte."""
        ticket = itertools.count()
        heap: list[tuple[int, int, Any, list[Step]]] = [(0, 0, matcher.deep_copy(), [])]
        seen: set[tuple[bytes, int]] = set()
        known: set[bytes] = set()
        looked_at = 0
        while heap and looked_at < limit:
            cost, _, state, path = heapq.heappop(heap)
            forced = self._follow_forced(state)
            path = path + forced
            if forced and by_length:  # it was shorter when it was put in line
                heapq.heappush(heap, (len(path), next(ticket), state, path))
                continue
            if state.is_accepting():
                return path
            mask = state.compute_bitmask()
            looked_at += 1
            if state.is_error() or (mask, len(path)) in seen:
                continue
            seen.add((mask, len(path)))
            cost += mask in known
            known.add(mask)
            for rank, step in enumerate(self._choices(mask, thorough=thorough)):
                child = state.deep_copy()
                singles = self._singles(step)
                if all(child.consume_token(self._token(single)) for single in singles):
                    turned = (cost + _TURN * min(rank, 1), -next(ticket))
                    entry = (len(path) + len(singles), next(ticket)) if by_length else turned
                    heapq.heappush(heap, (*entry, child, [*path, *singles]))
        return None

    def _follow_forced(self, state: Any) -> list[Step]:
        """Advance `state` over what can only come next."""
        steps: list[Step] = []
        forced = state.compute_ff_bytes()
        for index, piece in enumerate(_FORCED_MARKER.split(forced)):
            part: list[Step] = [int(piece)] if index % 2 else [bytes([value]) for value in piece]
            for step in part:
                if not state.consume_token(self._token(step)):
                    return steps
                steps.append(step)
        return steps

    def _choices(self, mask: bytes, *, thorough: bool) -> list[Step]:
        """Allowed markers, then allowed bytes or words, those that close a text first."""
        row = np.frombuffer(mask, np.uint8)
        low = special.FIRST_SPECIAL // 8
        bits = np.flatnonzero(np.unpackbits(row[low:], bitorder="little")) + low * 8
        markers: list[Step] = [
            int(token) for token in bits if special.FIRST_SPECIAL <= token < special.VOCABULARY_SIZE
        ]
        open_bytes = (row[self._ordered_tokens // 8] >> (self._ordered_tokens % 8)) & 1
        allowed = [self._order[index] for index in np.flatnonzero(open_bytes)]
        words: list[Step] = []
        if len(allowed) > _FREE and not thorough:
            # Inside a text: end it, else say a word, else go on: to a mail address's second half,
            # or with any letter.
            words = [] if ord('"') in allowed else [*self._words]
            allowed = [value for value in b'"@a' if value in allowed] or allowed
        if not thorough:  # blanks between the parts of JSON lead nowhere, at every place anew
            allowed = [value for value in allowed if value not in _BLANKS] or allowed
        return markers + words + [bytes([value]) for value in allowed]

    @staticmethod
    def _singles(step: Step) -> list[Step]:
        return [step] if isinstance(step, int) else [bytes([value]) for value in step]

    def _token(self, step: Step) -> int:
        return step if isinstance(step, int) else self._byte_token[step[0]]

    def _as_tokens(self, matcher: Any, path: list[Step]) -> list[int]:
        """Write the bytes between markers with long tokens, where the grammar takes them."""
        tokens: list[int] = []
        for is_marker, steps in itertools.groupby(path, key=lambda step: isinstance(step, int)):
            if is_marker:
                tokens += [step for step in steps if isinstance(step, int)]
            else:
                text = b"".join(step for step in steps if isinstance(step, bytes))
                tokens += self._encoding.encode_text(text.decode("utf-8", "replace"))
        if matcher.deep_copy().validate_tokens(tokens) == len(tokens):
            return tokens
        return [self._token(step) for step in path]
