"""Plain completions: text or token ids continued as they are, without harmony.

Stops at the model's message ends unless told otherwise; special tokens in a prompt are markers,
as everybody who uses this API wants.
"""

from __future__ import annotations

import codecs
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from gptoss_harmony import Sampling, TokenOutput
from gptoss_serve.asking import checked_sampling
from gptoss_serve.completions.chat import envelope, usage_object
from gptoss_serve.completions.schema import TextRequest
from gptoss_serve.completions.stops import StopTexts
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.events import Usage
from gptoss_serve.limits import Admission
from gptoss_serve.models import ModelNames
from gptoss_serve.pump import TokenPump
from gptoss_serve.session import Session
from gptoss_serve.watch import GenerationEnd, GenerationStart

Json = dict[str, Any]


class TextService:
    """Answers requests of plain completions."""

    def __init__(self, session: Session, *, models: ModelNames, admission: Admission) -> None:
        self._session = session
        self._models = models
        self._admission = admission

    def prompts(self, request: TextRequest) -> list[list[int]]:
        """The prompts of a request as tokens.

        Raises:
            ServeError: it cannot be served.
        """
        request.refuse("logit_bias", "best_of", "suffix")
        self._models.resolve(request.model)
        given = request.prompt
        is_one = isinstance(given, str) or isinstance(next(iter(given), None), int)
        tokens = [self._tokens(prompt) for prompt in ([given] if is_one else given)]
        if not tokens or not all(tokens):
            raise InvalidRequest("a prompt needs at least one token", param="prompt")
        size = self._session.engine.spec.vocabulary_size
        if any(not 0 <= token < size for prompt in tokens for token in prompt):
            raise InvalidRequest(f"the ids of tokens are 0 to {size - 1}", param="prompt")
        return tokens

    async def stream(
        self, request: TextRequest, prompts: list[list[int]], *, with_usage: bool, client: str = ""
    ) -> AsyncGenerator[list[Json], None]:
        """Chunks; prompts and choices come one after the other, then the usage if wanted."""
        model = self._models.resolve(request.model)
        completion_id = f"cmpl-{uuid.uuid4().hex}"
        total = Usage()
        for index, prompt in enumerate(p for p in prompts for _ in range(request.n or 1)):
            choice = _TextChoice(self._session, request, prompt, index)
            async with self._admission.slot(client):
                async for piece in choice.pieces():
                    yield [envelope("text_completion", completion_id, model, [piece])]
            total += choice.usage
        if with_usage:
            usage = usage_object(total)
            yield [envelope("text_completion", completion_id, model, [], usage=usage)]

    async def complete(
        self, request: TextRequest, prompts: list[list[int]], *, client: str = ""
    ) -> Json:
        """The whole completion."""
        choices: dict[int, Json] = {}
        whole: Json = {}
        async for batch in self.stream(request, prompts, with_usage=True, client=client):
            for chunk in batch:
                whole = chunk
                for piece in chunk["choices"]:
                    _merge(choices.setdefault(piece["index"], piece), piece)
        return {**whole, "choices": [choices[index] for index in sorted(choices)]}

    def _tokens(self, prompt: Any) -> list[int]:
        if isinstance(prompt, str):
            return self._session.encoding.encode(prompt, allowed_special="all")
        return list(prompt)


class _TextChoice:
    """One continuation of one prompt."""

    def __init__(
        self, session: Session, request: TextRequest, prompt: list[int], index: int
    ) -> None:
        self._session = session
        self._request = request
        self._prompt = prompt
        self._index = index
        self._stops = StopTexts(request.stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.usage = Usage(input_tokens=len(prompt))

    async def pieces(self) -> AsyncGenerator[Json, None]:
        """Pieces of the choice; the last has the finish reason."""
        finish, generated, cached = "stop", 0, 0
        shows_tokens = self._request.return_token_ids or self._request.logprobs is not None
        if self._request.echo:
            yield self._piece(self._session.encoding.decode(self._prompt), [])
        sampling = self._sampling()
        engine = self._session.engine
        start = GenerationStart(
            operation="text_completion", model=engine.spec.model_id, sampling=sampling
        )
        with self._session.watch.generation(start) as end:
            async with TokenPump(lambda: engine.generate(self._prompt, sampling)) as pump:
                async for outputs in pump:
                    cached = pump.cached_tokens
                    taken = [o for o in outputs if o.token is not None]
                    generated += len(taken)
                    finish = "length" if outputs[-1].finish_reason == "length" else "stop"
                    text = self._stops.feed(self._text(taken))
                    if text or (taken and shows_tokens):  # half a letter is a token too
                        yield self._piece(text, taken)
                    if self._stops.hit:
                        finish = "stop"
                        break
            self.usage = Usage(len(self._prompt), cached, generated, 0)
            end(GenerationEnd(usage=self.usage, reason=finish))
        rest = self._stops.feed(self._decoder.decode(b"", final=True)) + self._stops.finish()
        yield {**self._piece(rest, []), "finish_reason": finish}

    def _text(self, outputs: list[TokenOutput]) -> str:
        encoding, skip = self._session.encoding, self._request.skip_special_tokens
        hidden = set() if skip is False else set(encoding.stop_tokens())
        tokens = [o.token for o in outputs if o.token is not None and o.token not in hidden]
        if skip:
            tokens = [token for token in tokens if not encoding.is_special_token(token)]
        return self._decoder.decode(encoding.decode_bytes(tokens))

    def _piece(self, text: str, outputs: list[TokenOutput]) -> Json:
        piece: Json = {"index": self._index, "text": text, "finish_reason": None, "logprobs": None}
        if self._request.return_token_ids:
            piece["token_ids"] = [output.token for output in outputs]
        if self._request.logprobs is not None:
            decode = self._session.encoding.decode
            piece["logprobs"] = {
                "tokens": [decode([o.token]) for o in outputs if o.token is not None],
                "token_logprobs": [o.logprob for o in outputs],
                "top_logprobs": [
                    {decode([token]): score for token, score in o.top_logprobs} for o in outputs
                ],
                "text_offset": [],
            }
        return piece

    def _sampling(self) -> Sampling:
        request = self._request
        ends = [] if request.ignore_eos else self._session.encoding.stop_tokens()
        stops = tuple(sorted({*ends, *(request.stop_token_ids or ())}))
        return checked_sampling(
            max_tokens=request.max_tokens or 16,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            seed=request.seed,
            stop_tokens=stops,
            repetition_penalty=request.repetition_penalty,
            cache_salt=request.cache_salt,
            logprobs=request.logprobs,
        )


def _merge(whole: Json, piece: Json) -> None:
    if whole is piece:
        return
    whole["text"] += piece["text"]
    whole["finish_reason"] = piece["finish_reason"]
    if "token_ids" in piece:
        whole["token_ids"] += piece["token_ids"]
    if piece["logprobs"] is not None:
        for name, values in piece["logprobs"].items():
            whole["logprobs"][name] += values
