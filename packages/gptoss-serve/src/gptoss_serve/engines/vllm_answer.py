"""One answer of the vllm engine: from the request to the tokens in the stream.

A free answer is one request. A constrained one is checked here, token by token, by the constraint
itself, so that nothing it forbids ever comes out:

1. Where the server can hold a whole answer to a grammar, the constraint's is sent along, and the
   check only finds the end of the budget, which vLLM knows nothing of.
2. Otherwise the model writes freely up to the first forbidden token. That one is thrown away and
   asked for again, alone, with the list of allowed ones; then it writes freely on. A draw that is
   kept if allowed and else redrawn among the allowed has the distribution of the masked draw:
   p(t) + (1 - A) p(t) / A = p(t) / A, where A is the share of the allowed tokens.
3. Where only one token is allowed, nobody is asked.

The second way holds for plain sampling. A top-p of the free draw is not that of the masked one, and
a request that goes on does not know which tokens were the answer's: those are refused by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gptoss_harmony import Constraint, Prompt, Sampling, TokenOutput
from gptoss_harmony.errors import ContextOverflow, EngineError, HarmonyError, Unsupported
from gptoss_harmony.generation import TokenStream
from gptoss_harmony.tokens import VOCABULARY_SIZE
from gptoss_serve.engines.canceller import Canceller
from gptoss_serve.engines.vllm_server import WHOLE_GRAMMAR, RequestRefused, VllmServer
from gptoss_serve.engines.vllm_wire import (
    completion,
    prompt_scores,
    scoring,
    stop_tokens,
    trimmed,
)

_WORDS: Final = -(-VOCABULARY_SIZE // 32)
_Outputs = Generator[TokenOutput, None, None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What answers.

    Attributes:
        server: the server.
        name: of the model, as the server calls it.
        context_length: most tokens of prompt and answer.
        features: what the server was found to do.
    """

    server: VllmServer
    name: str
    context_length: int
    features: frozenset[str]


class Answer:
    """One request on its way.

    Args:
        model: who answers.
        prompt: what to continue.
        sampling: how.
        constraint: what the answer must obey, or None.
        count: called with the numbers of tokens, by the names of `EngineStats`.
    """

    def __init__(
        self,
        model: ServedModel,
        prompt: Prompt,
        *,
        sampling: Sampling,
        constraint: Constraint | None,
        count: Callable[..., None],
    ) -> None:
        self.canceller = Canceller()
        self._model = model
        self._prompt = prompt.tokens
        self._sampling = sampling
        self._constraint = constraint
        self._count = count
        self._scores: Any = None
        self._limit = 0

    def run(self, stream: TokenStream) -> None:
        """Answer into `stream`, to the end; call it in a thread of its own."""
        try:
            self._check()
            self._count(prompt_tokens=len(self._prompt))
            self._score()
            stream.begin(cached_tokens=0, prompt_logprobs=self._scores)
            for output in self._outputs(stream):
                self._count(generated_tokens=output.token is not None)
                stream.put(output)
            if not stream.ended:
                stream.finish_cancelled()
        except HarmonyError as error:
            known = isinstance(error, EngineError)
            stream.fail(error if known else EngineError(str(error)))

    def _check(self) -> None:
        """Refuse what is impossible, and find the room for the answer."""
        tokens, length = self._prompt, self._model.context_length
        if not tokens or not all(0 <= token < VOCABULARY_SIZE for token in tokens):
            raise EngineError(f"a prompt is one or more token ids below {VOCABULARY_SIZE}")
        self._refuse()
        room = length - len(tokens)
        if room <= 0:
            raise ContextOverflow(
                f"the prompt has {len(tokens)} tokens but the context has {length}"
            )
        most = self._sampling.max_tokens
        self._limit = room if most is None else min(room, most)

    def _refuse(self) -> None:
        sampling, features = self._sampling, self._model.features
        asked = {
            "constraint": self._constraint is not None,
            "logprobs": sampling.logprobs is not None,
            "prompt_logprobs": sampling.prompt_logprobs is not None,
        }
        for feature, wanted in asked.items():
            if wanted and feature not in features:
                raise Unsupported(f"this vLLM server does not support {feature}; update vLLM")
        if self._constraint is not None and self._grammar() is None:
            self._refuse_truncation(
                "it does not hold whole answers to a grammar; start it with "
                "--structured-outputs-config "
                '\'{"backend": "guidance", "enable_in_reasoning": true}\''
            )

    def _refuse_truncation(self, reason: str) -> None:
        """Refuse what the second way of a constraint cannot do."""
        sampling = self._sampling
        truncating = {
            "top_p": sampling.top_p < 1 and sampling.temperature > 0,
            "top_k": sampling.top_k > 0 and sampling.temperature > 0,
            "min_p": sampling.min_p > 0 and sampling.temperature > 0,
            "presence_penalty": sampling.presence_penalty != 0,
            "frequency_penalty": sampling.frequency_penalty != 0,
        }
        for name, wanted in truncating.items():
            if wanted:
                raise Unsupported(
                    f"this vLLM server cannot combine {name} with the constraint: {reason}"
                )

    def _score(self) -> None:
        count = self._sampling.prompt_logprobs
        if count is not None and not self.canceller.cancelled:
            body = scoring(self._model.name, self._prompt, self._sampling)
            answer = self._model.server.whole(body)
            self._scores = prompt_scores(answer, self._prompt, count)

    def _outputs(self, stream: TokenStream) -> Iterator[TokenOutput]:
        if self._limit == 0:
            yield TokenOutput(None, finish_reason="length")
        elif self._constraint is None:
            yield from self._ask(stream, [])
        else:
            yield from self._constrained(stream, self._constraint)

    def _ask(self, stream: TokenStream, done: list[int], **more: Any) -> _Outputs:
        """One request after the answer's tokens so far."""
        sampling = self._sampling
        if sampling.seed is not None and done:
            sampling = dataclasses.replace(sampling, seed=(sampling.seed + len(done)) % 2**63)
        more.setdefault("max_tokens", self._limit - len(done))
        body = completion(self._model.name, [*self._prompt, *done], sampling, **more)

        def cached(tokens: int) -> None:
            if not done:
                self._count(cached_tokens=tokens)
                stream.begin(cached_tokens=tokens, prompt_logprobs=self._scores)

        with closing(self._model.server.stream(body, self.canceller, on_cached=cached)) as outputs:
            for output in outputs:
                if self.canceller.cancelled:
                    return
                yield trimmed(output, sampling.logprobs or 0)

    def _constrained(self, stream: TokenStream, constraint: Constraint) -> Iterator[TokenOutput]:
        """The answer in as many requests as it takes."""
        done: list[int] = []
        reason = None
        grammar = self._grammar()
        refused = False
        while reason is None and not self.canceller.cancelled:
            outputs = self._next(stream, constraint, done, refused=refused, grammar=grammar)
            grammar = None  # it starts where an answer starts
            refused = True
            with closing(outputs):  # which stops what the server still writes
                for output in outputs:
                    if output.token is None or not _allows(constraint, output.token):
                        break
                    constraint.accept(output.token)
                    done.append(output.token)
                    reason = self._reason(done, constraint)
                    refused = False
                    yield dataclasses.replace(output, finish_reason=reason)
                    if reason is not None:
                        break

    def _next(
        self,
        stream: TokenStream,
        constraint: Constraint,
        done: list[int],
        *,
        refused: bool,
        grammar: str | None,
    ) -> _Outputs:
        """More tokens: by the grammar, the only one, one of the allowed, or a free run."""
        row = np.zeros(_WORDS, np.int32)
        if grammar is not None:
            return self._by_grammar(stream, grammar)
        if not constraint.fill(row):
            return self._ask(stream, done)
        allowed = _tokens(row)
        if not allowed:
            raise EngineError("the constraint allows no token at all")
        if len(allowed) == 1 and self._sampling.logprobs is None:
            return (TokenOutput(token) for token in allowed)
        if refused or len(allowed) == 1:
            return self._ask(stream, done, max_tokens=1, allowed_token_ids=allowed)
        return self._ask(stream, done)

    def _by_grammar(self, stream: TokenStream, grammar: str) -> _Outputs:
        """The answer as the server holds it to the grammar; nothing if it cannot read it."""
        try:
            yield from self._ask(stream, [], structured_outputs={"grammar": grammar})
        except RequestRefused as error:
            self._refuse_truncation(f"it does not take this one's grammar ({error})")

    def _reason(self, done: list[int], constraint: Constraint) -> Any:
        if done[-1] in stop_tokens(self._sampling) or constraint.done:
            return "stop"
        return "length" if len(done) == self._limit else None

    def _grammar(self) -> str | None:
        """The constraint's grammar, where the server takes one and the constraint has one."""
        format = getattr(self._constraint, "format", None)
        if format is None or WHOLE_GRAMMAR not in self._model.features:
            return None
        return str(format.whole_lark())


def _allows(constraint: Constraint, token: int) -> bool:
    row = np.zeros(_WORDS, np.int32)
    return not constraint.fill(row) or bool(row[token // 32] >> token % 32 & 1)


def _tokens(row: NDArray[np.int32]) -> list[int]:
    """The ids whose bits are set."""
    bits = np.unpackbits(row.view(np.uint8), bitorder="little", count=VOCABULARY_SIZE)
    found: list[int] = np.flatnonzero(bits).tolist()
    return found
