"""One request in the engine: what the consumer asked for, beside its sequence in the scheduler."""

from __future__ import annotations

import random
import weakref
from collections import Counter

from gptoss_harmony.engine import (
    Constraint,
    FinishReason,
    Sampling,
    TokenLogprob,
    TokenOutput,
)
from gptoss_harmony.errors import EngineError
from gptoss_harmony.generation import TokenStream
from gptoss_triton.sequence import Sequence


class Request:
    """A prompt on its way to an answer.

    Args:
        sequence: its tokens.
        sampling: the consumer's settings.
        constraint: what the answer must obey, or None.
        stream: the consumer's side; held weakly, so that an answer nobody can read any more counts
            as cancelled.
        stop_tokens: ids that end the answer.
    """

    def __init__(
        self,
        sequence: Sequence,
        sampling: Sampling,
        *,
        constraint: Constraint | None,
        stream: TokenStream,
        stop_tokens: frozenset[int],
    ) -> None:
        self.sequence, self.sampling, self.constraint = sequence, sampling, constraint
        self.stop_tokens = stop_tokens
        self.seed = random.getrandbits(62) if sampling.seed is None else sampling.seed & (2**62 - 1)
        self.answered: Counter[int] = Counter()
        self.begun = False
        self._scores: list[TokenLogprob | None] = [None] * sequence.prompt if self.scored else []
        self._unscored = max(0, len(self._scores) - 1)  # nothing comes before the first token
        self._stream = weakref.ref(stream)

    @property
    def penalised(self) -> bool:
        """Whether its logits depend on the tokens before them."""
        sampling = self.sampling
        penalties = (sampling.presence_penalty, sampling.frequency_penalty)
        return any(penalties) or sampling.repetition_penalty != 1.0

    @property
    def filtered(self) -> bool:
        """Whether top-k, top-p or min-p leave tokens out."""
        sampling = self.sampling
        filters = sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0
        return filters and sampling.temperature > 0.0

    @property
    def scored(self) -> bool:
        """Whether log probabilities of its prompt are wanted."""
        return self.sampling.prompt_logprobs is not None

    @property
    def waits(self) -> bool:
        """Whether its next step needs the token of this one on the host."""
        return self.constraint is not None or self.penalised

    @property
    def cancelled(self) -> bool:
        """Whether the consumer asked to stop, or is gone."""
        stream = self._stream()
        return stream is None or stream.cancelled

    def begin(self) -> None:
        """Tell the consumer how much was cached, once; a prompt to be scored must be read first."""
        if not self.begun and self.sequence.cached is not None:
            self.begun = True
            if not self._unscored:
                self._tell()

    def score(self, first: int, scores: list[TokenLogprob]) -> None:
        """Take the scores of prompt tokens from position `first` on; the last ones are told.

        After a preemption they come again, and change nothing.
        """
        for position, score in enumerate(scores, first):
            if self._scores[position] is None:
                self._scores[position] = score
                self._unscored -= 1
                if not self._unscored:
                    self._tell()

    def _tell(self) -> None:
        """Report what is known before the first token."""
        stream = self._stream()
        if stream is not None:
            scores = tuple(self._scores) if self.scored else None
            stream.begin(cached_tokens=self.sequence.cached or 0, prompt_logprobs=scores)

    def accept(self, token: int) -> FinishReason | None:
        """Take a drawn token in; returns why the answer ends with it, or None.

        Raises:
            EngineError: the constraint failed.
        """
        self.answered[token] += 1
        try:
            if self.constraint is not None:
                self.constraint.accept(token)
            done = self.constraint is not None and self.constraint.done
        except Exception as error:
            raise EngineError(f"the constraint failed on token {token}: {error}") from error
        if token in self.stop_tokens or done:
            return "stop"
        return "length" if len(self.sequence.tokens) + 1 >= self.sequence.limit else None

    def put(self, output: TokenOutput) -> None:
        """Hand an output to the consumer, if there still is one."""
        stream = self._stream()
        if stream is not None:
            stream.put(output)

    def cancel(self) -> None:
        """Tell the consumer that it was cancelled."""
        stream = self._stream()
        if stream is not None:
            stream.finish_cancelled()

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        stream = self._stream()
        if stream is not None:
            stream.fail(error)
