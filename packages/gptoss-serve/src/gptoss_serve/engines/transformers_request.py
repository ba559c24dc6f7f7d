"""One request of engine `transformers`: its tokens, and how the next one is chosen.

The steps from logits to a token are Transformers' own logits processors, in the order of the
contract; what Transformers has no processor for (a constraint's mask, presence and frequency) is a
callable of the same form in between.

Legend: V vocabulary, N tokens so far.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gptoss_harmony import Constraint, Prompt, Sampling, TokenLogprob, TokenOutput
from gptoss_harmony.engine import FinishReason
from gptoss_harmony.errors import EngineError
from gptoss_harmony.generation import TokenStream
from gptoss_harmony.tokens import ASSISTANT_ACTION_ENDS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

EXTRA = frozenset({"logit_bias"})  # research options: `Sampling(extra={"logit_bias": {11: -100}})`
COLDEST = 1e-5  # lower temperatures would overflow float32 and choose the same token


class Request:
    """A prompt on its way to an answer, in whichever lane it runs.

    Args:
        prompt: at least one token.
        sampling: the consumer's settings.
        constraint: what the answer must obey, or None.
        context: most tokens of prompt and answer.

    Attributes:
        tokens: prompt and answer so far.
        limit: length of `tokens` at which the answer ends.
        wake: called when the consumer cancels; the lane sets it.
    """

    def __init__(
        self, prompt: Prompt, sampling: Sampling, constraint: Constraint | None, *, context: int
    ) -> None:
        self.sampling = sampling
        self.constraint = constraint
        self.tokens = list(prompt.tokens)
        self.prompt_length = len(self.tokens)
        room = context if sampling.max_tokens is None else sampling.max_tokens
        self.limit = min(context, self.prompt_length + room)
        stops = sampling.stop_tokens
        self.stop_tokens = ASSISTANT_ACTION_ENDS if stops is None else frozenset(stops)
        self.wake: Callable[[], None] = _nothing
        self._stream: Callable[[], TokenStream | None] = _nothing

    def open_stream(self) -> TokenStream:
        """Make the consumer's side; a consumer that drops it has cancelled."""
        stream = TokenStream(on_cancel=lambda: self.wake())
        self._stream = weakref.ref(stream)
        return stream

    @property
    def stream(self) -> TokenStream:
        """The consumer's side, or one that nobody reads where the consumer is gone."""
        return self._stream() or TokenStream()

    @property
    def cancelled(self) -> bool:
        """Whether the consumer asked to stop, or is gone."""
        stream = self._stream()
        return stream is None or stream.cancelled

    @property
    def batchable(self) -> bool:
        """Whether the answer needs nothing but the model's own distribution at a temperature.

        Such requests can run in Transformers' continuous batching, whose random numbers, masks and
        reports are not per request.
        """
        s = self.sampling
        asked = (s.seed, s.logprobs, s.prompt_logprobs, self.constraint, s.extra or None)
        shaped = (s.presence_penalty, s.frequency_penalty, s.min_p, s.top_k, s.top_p - 1.0)
        return (
            all(value is None for value in asked)
            and not any(shaped)
            and s.repetition_penalty == 1.0
            and len(self.tokens) < self.limit
        )

    def accept(self, token: int) -> FinishReason | None:
        """Append a generated token; returns why the answer ends with it, or None.

        Raises:
            EngineError: the constraint does not take the token.
        """
        self.tokens.append(token)
        if self.constraint is not None:
            try:
                self.constraint.accept(token)
            except Exception as error:  # a stranger's code: its failure is this request's
                raise EngineError(f"the constraint failed on token {token}: {error}") from error
        if token in self.stop_tokens or (self.constraint is not None and self.constraint.done):
            return "stop"
        return "length" if len(self.tokens) >= self.limit else None


class Chooser:
    """Turns logits into tokens for one request.

    Args:
        request: whose settings count.
        device: where the logits will be.
    """

    def __init__(self, request: Request, device: torch.device) -> None:
        import torch

        self._request = request
        self._device = device
        self._steps = _steps(request)
        self._generator = torch.Generator(device=device)
        seed = request.sampling.seed
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def choose(self, logits: Tensor) -> TokenOutput:
        """Choose a token and report what the request asks to know of it.

        Args:
            logits: float32 (V,), left as they are.

        Raises:
            EngineError: no token is left, or the constraint failed.
        """
        import torch

        ids = torch.empty(1, 0, dtype=torch.long, device=self._device)
        if self._request.sampling.repetition_penalty != 1.0:  # the one step that reads them
            ids = torch.tensor([self._request.tokens], device=self._device)  # (1, N)
        scores = self._steps(ids, logits.unsqueeze(0).clone())[0]  # (V,)
        best = scores.max()
        if not bool(torch.isfinite(best)):
            raise self._nothing_left()
        if self._request.sampling.temperature == 0:
            token = int(scores.argmax())
        else:
            weights = torch.softmax(scores - best, -1)
            token = int(torch.multinomial(weights, 1, generator=self._generator))
        if self._request.sampling.logprobs is None:
            return TokenOutput(token)
        (score,) = score_tokens(logits.unsqueeze(0), [token], self._request.sampling.logprobs)
        return TokenOutput(token, score.logprob, score.top)

    def _nothing_left(self) -> EngineError:
        if self._request.constraint is not None:
            return EngineError(
                "the constraint allows no token here; check that the grammar can be continued at "
                "every point and that it allows a stop token at its end"
            )
        return EngineError("the model's logits are not finite; the checkpoint may be damaged")


def score_tokens(logits: Tensor, tokens: list[int], alternatives: int) -> list[TokenLogprob]:
    """Natural-log probabilities of tokens and of their likeliest alternatives.

    Args:
        logits: float32 (N, V), as the model gave them.
        tokens: the N ids to score.
        alternatives: how many of the likeliest tokens to list.
    """
    import torch

    scores = torch.log_softmax(logits, -1)  # (N, V)
    chosen = scores.gather(1, torch.tensor(tokens, device=logits.device).unsqueeze(1))  # (N, 1)
    values, ids = scores.topk(alternatives)  # (N, alternatives)
    rows = zip(tokens, chosen.squeeze(1).tolist(), ids.tolist(), values.tolist(), strict=True)
    return [
        TokenLogprob(token, min(0.0, score), tuple(zip(names, listed, strict=True)))
        for token, score, names, listed in rows
    ]


def _steps(request: Request) -> Any:
    """Transformers' processors for a request, in the order of the contract."""
    import transformers as library

    s = request.sampling
    first: list[Any] = [] if request.constraint is None else [_Mask(request.constraint)]
    if bias := s.extra.get("logit_bias"):
        first.append(_Bias(bias))
    warm = s.temperature > 0  # a greedy request needs no candidates cut
    coldness = max(COLDEST, s.temperature)
    table: tuple[tuple[bool, Callable[[], Any]], ...] = (
        (
            s.repetition_penalty != 1.0,
            lambda: library.RepetitionPenaltyLogitsProcessor(s.repetition_penalty),
        ),
        (s.presence_penalty != 0 or s.frequency_penalty != 0, lambda: _Used(request)),
        (warm and s.temperature != 1.0, lambda: library.TemperatureLogitsWarper(coldness)),
        (warm and s.top_k > 0, lambda: library.TopKLogitsWarper(s.top_k)),
        (warm and s.top_p < 1.0, lambda: library.TopPLogitsWarper(s.top_p)),
        (warm and s.min_p > 0.0, lambda: library.MinPLogitsWarper(s.min_p)),
    )
    return library.LogitsProcessorList([*first, *(make() for wanted, make in table if wanted)])


class _Mask:
    """A logits processor that forbids what a constraint does not allow."""

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Map scores (1, V) to scores (1, V)."""
        import torch

        words = np.zeros(-(-scores.shape[1] // 32), dtype=np.int32)
        try:
            restricted = self._constraint.fill(words)
        except Exception as error:  # a stranger's code: its failure is this request's
            raise EngineError(f"the constraint failed: {error}") from error
        if not restricted:
            return scores
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: scores.shape[1]]
        allowed = torch.from_numpy(bits.astype(bool)).to(scores.device)  # (V,)
        return scores.masked_fill(~allowed, -torch.inf)


class _Used:
    """A logits processor that makes generated tokens less likely: presence and frequency."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._counts: Counter[int] = Counter()
        self._counted = request.prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Map scores (1, V) to scores (1, V)."""
        import torch

        self._counts.update(self._request.tokens[self._counted :])
        self._counted = len(self._request.tokens)
        if not self._counts:
            return scores
        sampling = self._request.sampling
        ids = torch.tensor(list(self._counts), device=scores.device)
        times = torch.tensor(list(self._counts.values()), device=scores.device)
        scores[0, ids] -= sampling.frequency_penalty * times + sampling.presence_penalty
        return scores


class _Bias:
    """A logits processor that adds a number to the logits of chosen tokens."""

    def __init__(self, bias: Mapping[int | str, float]) -> None:
        self._tokens = [int(token) for token in bias]
        self._values = [float(value) for value in bias.values()]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Map scores (1, V) to scores (1, V)."""
        import torch

        scores[0, self._tokens] += torch.tensor(self._values, device=scores.device)
        return scores


def _nothing() -> None:
    return None
