"""One answer of Ollama: the request to `/api/generate`, and the lines that come back.

```
POST /api/generate {"model": "gpt-oss:20b", "prompt": "...", "raw": true, "options": {...}}
{"response":"<|channel|>","done":false}
{"response":"","done":true,"done_reason":"stop","prompt_eval_count":68,"eval_count":42}
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from gptoss_harmony import Prompt, Sampling, TokenOutput, load_encoding
from gptoss_harmony.errors import ContextOverflow, EngineError, Unsupported
from gptoss_harmony.generation import TokenStream
from gptoss_harmony.tokens import ASSISTANT_ACTION_ENDS, VOCABULARY_SIZE
from gptoss_serve.engines.canceller import Canceller
from gptoss_serve.engines.ollama_text import AnswerText, prompt_text

_SEEDS = 2**31  # Ollama takes -1 for "none" and reads larger numbers as floats


class Answer:
    """A request on its way.

    Args:
        prompt: what to continue.
        sampling: how; settings that Ollama does not have are refused.
        constrained: whether a constraint came along, which Ollama cannot obey.
        context: most tokens of prompt and answer.
    """

    def __init__(
        self, prompt: Prompt, sampling: Sampling, *, constrained: bool, context: int
    ) -> None:
        self.canceller = Canceller()
        self._prompt = prompt.tokens
        self._sampling = sampling
        self._constrained = constrained
        self._context = context
        stops = sampling.stop_tokens
        self._stops = ASSISTANT_ACTION_ENDS if stops is None else frozenset(stops)

    def check(self) -> int:
        """Return how many tokens the answer may have.

        Raises:
            EngineError: the request is not possible.
        """
        asked = {
            "constraint": self._constrained,
            "logprobs": self._sampling.logprobs is not None,
            "prompt_logprobs": self._sampling.prompt_logprobs is not None,
            **{f"extra {key!r}": True for key in self._sampling.extra},
        }
        for feature, wanted in asked.items():
            if wanted:
                raise Unsupported(f"the ollama engine does not support {feature}")
        if not self._prompt or not all(0 <= token < VOCABULARY_SIZE for token in self._prompt):
            raise EngineError(f"a prompt is one or more token ids below {VOCABULARY_SIZE}")
        room = self._context - len(self._prompt)
        if room <= 0:
            raise ContextOverflow(
                f"the prompt has {len(self._prompt)} tokens but the context has {self._context}; "
                "shorten it or raise --context"
            )
        most = self._sampling.max_tokens
        return room if most is None else min(room, most)

    def run(
        self,
        http: httpx.Client,
        model: dict[str, Any],
        stream: TokenStream,
        count: Callable[..., None],
    ) -> None:
        """Ask, and feed the stream to its end.

        Args:
            http: a client whose base URL is the server's.
            model: the fields that name the model.
            stream: gets the tokens.
            count: told of the tokens `prompt` and `generated`, before they are handed out.

        Raises:
            EngineError: the request is not possible, or the server refused or failed.
        """
        limit = self.check()
        count(prompt=len(self._prompt))
        stream.begin(cached_tokens=0)
        if limit == 0:
            stream.put(TokenOutput(None, finish_reason="length"))
            return
        try:
            with http.stream("POST", "api/generate", json=self.body(limit) | model) as reply:
                self.canceller.watch(reply)
                if reply.status_code != 200:
                    raise refusal(reply)
                self._take(_pieces(reply), stream, limit, count)
        except (httpx.HTTPError, httpx.StreamError) as error:
            if not stream.cancelled:
                raise EngineError(f"Ollama stopped answering: {error!r}") from error
        if stream.cancelled:
            stream.finish_cancelled()
        elif not stream.ended:
            raise EngineError("Ollama ended its stream before the answer was done")

    def body(self, limit: int) -> dict[str, Any]:
        """What to send, without the model's name.

        Every setting is sent, because a Modelfile may have its own and Ollama's defaults are not
        those of a distribution as it is (its `repeat_penalty` is 1.1).
        """
        sampling = self._sampling
        return {
            "prompt": prompt_text(load_encoding(), self._prompt),
            "raw": True,
            "stream": True,
            "truncate": False,
            "shift": False,
            "options": {
                "num_ctx": self._context,
                "num_predict": limit,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "min_p": sampling.min_p,
                "presence_penalty": sampling.presence_penalty,
                "frequency_penalty": sampling.frequency_penalty,
                "repeat_penalty": sampling.repetition_penalty,
                "repeat_last_n": -1,
                "seed": -1 if sampling.seed is None else sampling.seed % _SEEDS,
                "stop": [],
            },
        }

    def _take(
        self,
        pieces: Iterator[dict[str, Any]],
        stream: TokenStream,
        limit: int,
        count: Callable[..., None],
    ) -> None:
        """Hand out tokens until one ends the answer, or the server says that it is done."""
        text = AnswerText(load_encoding(), self._prompt)
        for piece in pieces:
            tokens = text.read(piece)
            done = bool(piece.get("done"))
            if done and piece.get("done_reason") != "length":
                end = text.end()
                tokens += [] if end is None else [end]
            for token in tokens:
                count(generated=1)
                limit -= 1
                reason = self._reason(token, limit)
                stream.put(TokenOutput(token, finish_reason=reason))
                if reason is not None:
                    return
            if done:
                cut = piece.get("done_reason") == "length"
                stream.put(TokenOutput(None, finish_reason="length" if cut else "stop"))
                return

    def _reason(self, token: int, room: int) -> Any:
        if token in self._stops:
            return "stop"
        return "length" if room == 0 else None


def _pieces(reply: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield the lines of a stream.

    Raises:
        EngineError: a line says so, or is no JSON object.
    """
    for line in reply.iter_lines():
        if not line.strip():
            continue
        try:
            piece = json.loads(line)
        except ValueError as error:
            raise EngineError(f"Ollama sent what cannot be read: {line[:200]!r}") from error
        if not isinstance(piece, dict):
            raise EngineError(f"Ollama sent what cannot be read: {line[:200]!r}")
        if problem := piece.get("error"):
            raise EngineError(f"Ollama failed in the middle of the answer: {problem}")
        yield piece


def refusal(reply: httpx.Response) -> EngineError:
    """The error for an answer that is none."""
    reply.read()
    try:
        text = str(reply.json()["error"])
    except (ValueError, KeyError, TypeError):
        text = reply.text[:300]
    if "context length" in text:
        return ContextOverflow(f"Ollama refused the prompt: {text}; raise --context")
    if reply.status_code == 404:
        return EngineError(f"Ollama does not have the model any more: {text}; pull it again")
    if reply.status_code == 503:
        return EngineError(f"Ollama has too many requests waiting: {text}; try again later")
    return EngineError(f"Ollama answered {reply.status_code}: {text}")
