"""One pass: pending tokens of some requests through the model, then a token for each that is due.

```
outcomes = runner.run(work)     # work says which requests, and how many tokens of each
```

A pass appends to the caches and to the prompt scores of its requests, and to nothing else: no
request has moved on until its outcome is used, so a pass that fails can be done again.

Legend: T tokens of the pass, S requests in it, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_core.logprobs import score
from gptoss_core.model import Transformer
from gptoss_core.request import Request
from gptoss_core.sampling import LogitsStep, SamplingBatch, choose, pipeline
from gptoss_core.scheduler import Pass
from gptoss_harmony.engine import TokenLogprob
from gptoss_harmony.errors import EngineError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass means for a request whose pending tokens it has used up.

    Attributes:
        request: the request.
        token: the next token; None where no more are wanted or none could be chosen.
        score: its log probability, where asked for.
        failure: why none could be chosen.
    """

    request: Request
    token: int | None = None
    score: TokenLogprob | None = None
    failure: EngineError | None = None


class Runner:
    """The model and the sampling pipeline.

    Args:
        model: the weights.
        thermostats: steps for the thermostat's slot of the pipeline.
        share: makes all processes agree on the sampled tokens; one process needs none.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        thermostats: Sequence[LogitsStep] = (),
        share: Callable[[list[int]], list[int]] | None = None,
    ) -> None:
        self.model = model
        self._steps = pipeline(thermostats)
        self._share = share
        self._sampled: list[Request] = []  # whose rows `_batch` holds
        self._batch = SamplingBatch((), model.device)

    def run(self, work: Pass) -> list[Outcome]:
        """Take the requests forward; returns the outcomes of those that have nothing pending."""
        starts = [request.computed for request, _ in work.parts]
        logits = self._forward(work)  # (S, V), or (T, V) where every position was asked for
        if work.every_position:
            self._score(work.parts[0][0], logits, starts[0])
            logits = logits[-1:]  # (1, V)
        due = [(row, request) for row, (request, _) in enumerate(work.parts) if not request.pending]
        full = [request for _, request in due if request.limit == len(request.tokens)]
        due = [(row, request) for row, request in due if request not in full]
        outcomes = [Outcome(request) for request in full]
        if not due:
            return outcomes
        if len(due) < len(logits):
            logits = logits[torch.tensor([row for row, _ in due], device=logits.device)]
        return outcomes + self._choose(logits, [request for _, request in due])

    def _forward(self, work: Pass) -> Tensor:
        """Logits after the tokens of the pass."""
        tokens: list[int] = []
        caches = []
        for request, count in work.parts:
            assert request.cache is not None  # every running request was given one
            tokens += request.tokens[request.computed : request.computed + count]
            caches.append(request.cache)
        return self.model.forward_ragged(
            torch.tensor(tokens, device=self.model.device),
            [count for _, count in work.parts],
            caches,
            last_only=not work.every_position,
        )

    def _score(self, request: Request, logits: Tensor, start: int) -> None:
        """Score the prompt tokens that follow the positions of `logits` (T, V)."""
        tokens = request.prompt.tokens[start + 1 : start + 1 + len(logits)]
        alternatives = [request.sampling.prompt_logprobs] * len(tokens)
        request.scores += score(logits[: len(tokens)], tokens, alternatives)
        if not request.scoring:
            request.begin()

    def _choose(self, logits: Tensor, requests: list[Request]) -> list[Outcome]:
        """The next token of each request, from logits (S, V)."""
        if requests != self._sampled:
            rows = [request.row for request in requests if request.row is not None]
            self._sampled, self._batch = requests, SamplingBatch(rows, self.model.device)
        choice = choose(logits, self._batch, self._steps)
        tokens = choice.tokens if self._share is None else self._share(choice.tokens)
        scores = score(logits, tokens, [request.sampling.logprobs for request in requests])
        return [
            Outcome(request, failure=choice.failures[row])
            if row in choice.failures
            else Outcome(request, tokens[row], scores[row])
            for row, request in enumerate(requests)
        ]
