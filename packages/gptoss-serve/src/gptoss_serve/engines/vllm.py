"""Engine `vllm`: a vLLM server, spoken to in token ids.

`/v1/completions` of vLLM takes a prompt of token ids, and with `return_token_ids` gives the ids it
generated, special tokens included: what goes over the wire is exactly what our own engines see, so
that chat, tools and APIs are the same. One machine or many is vLLM's business.

```
gptoss serve --inference-backend vllm --engine-url http://gpu-box:8000/v1 --checkpoint gpt-oss-120b
```
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from gptoss_harmony import (
    Constraint,
    EngineSpec,
    EngineStats,
    Prompt,
    Sampling,
    TokenOutput,
)
from gptoss_harmony.errors import (
    ContextOverflow,
    EngineError,
    HarmonyError,
    Unsupported,
    UsageError,
)
from gptoss_harmony.generation import TokenStream
from gptoss_harmony.tokens import ASSISTANT_ACTION_ENDS, VOCABULARY_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmOptions:
    """Which server."""

    engine_url: str = field(
        default="http://127.0.0.1:8000/v1", metadata={"help": "base URL of the vLLM server"}
    )
    engine_key: str = field(
        default="", metadata={"help": "key of the server; empty reads VLLM_API_KEY"}
    )
    seconds: float = field(
        default=600.0, metadata={"help": "how long the server may be silent, in seconds"}
    )


class VllmEngine:
    """A vLLM server as an engine. `checkpoint` is the name under which it serves the model."""

    Options = VllmOptions

    def __init__(self, http: httpx.Client, model: str, *, context_length: int) -> None:
        self._http = http
        self._model = model
        self._lock = threading.Lock()
        self._closed = False
        self._running = 0
        self._idle = threading.Condition(self._lock)
        self._counts = {"prompt_tokens": 0, "cached_tokens": 0, "generated_tokens": 0}
        self.spec = EngineSpec(
            name="vllm",
            model_id=model,
            context_length=context_length,
            vocabulary_size=VOCABULARY_SIZE,
            device="remote",
            supports=frozenset({"seed", "batching", "exact_tokens"}),
        )

    @classmethod
    def open(cls, checkpoint: str, options: VllmOptions) -> Self:
        """Ask the server for its models.

        Raises:
            HarmonyError: there is no server, or it does not serve the model.
        """
        key = options.engine_key or os.environ.get("VLLM_API_KEY", "")
        http = httpx.Client(
            base_url=options.engine_url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(options.seconds, connect=10.0),
            limits=httpx.Limits(max_connections=None),
        )
        try:
            answer = http.get("models")
            answer.raise_for_status()
            models = {entry["id"]: entry for entry in answer.json()["data"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            http.close()
            raise EngineError(
                f"no vLLM server answers at {options.engine_url} ({error}); start one with: "
                "vllm serve MODEL, or name another with --engine-url"
            ) from error
        if checkpoint not in models:
            http.close()
            raise UsageError(
                f"the vLLM server at {options.engine_url} serves {', '.join(models) or 'nothing'}, "
                f"not {checkpoint!r}"
            )
        length = models[checkpoint].get("max_model_len") or 131_072
        return cls(http, checkpoint, context_length=int(length))

    def generate(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
    ) -> TokenStream:
        """Start an answer; a thread of its own reads the server's stream."""
        request = _Request(Prompt.of(prompt), sampling, refused=constraint is not None)
        stream = TokenStream(on_cancel=request.cancel)
        with self._lock:
            closed = self._closed
            self._running += not closed
        if closed:
            stream.fail(EngineError("the engine is closed; open a new one"))
        else:
            threading.Thread(target=self._run, args=(request, stream), daemon=True).start()
        return stream

    def stats(self) -> EngineStats:
        """Counters of this side; the server's memory is its own."""
        with self._lock:
            return EngineStats(running=self._running, **self._counts)

    def close(self) -> None:
        """Wait for running answers, then close the connections."""
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: self._running == 0)
        self._http.close()

    def _run(self, request: _Request, stream: TokenStream) -> None:
        try:
            body = request.body(self._model, self.spec.context_length)
            if body is None:
                stream.begin(cached_tokens=0)
                stream.put(TokenOutput(None, finish_reason="length"))
            else:
                self._read(request, stream, body)
        except HarmonyError as error:
            stream.fail(error)
        except Exception as error:  # whatever a server does must reach the reader
            if stream.cancelled:
                stream.finish_cancelled()
            if isinstance(error, httpx.HTTPError):
                stream.fail(EngineError(f"the vLLM server stopped answering: {error!r}"))
            stream.fail(EngineError(f"the vLLM server sent what cannot be read: {error!r}"))
        finally:
            with self._lock:
                self._running -= 1
                self._idle.notify_all()

    def _read(self, request: _Request, stream: TokenStream, body: dict[str, Any]) -> None:
        with self._http.stream("POST", "completions", json=body) as answer:
            request.answer = answer
            if answer.status_code != 200:
                raise _refused(answer)
            self._count(prompt_tokens=len(request.prompt.tokens))
            stream.begin(cached_tokens=0)
            for line in answer.iter_lines():
                if stream.cancelled or stream.ended:
                    break
                if line.startswith("data: {"):
                    self._take(json.loads(line.removeprefix("data: ")), stream)
        if not stream.ended:
            if not stream.cancelled:
                raise EngineError("the vLLM server ended its stream too early")
            stream.finish_cancelled()

    def _take(self, chunk: dict[str, Any], stream: TokenStream) -> None:
        if "error" in chunk:
            raise EngineError(f"the vLLM server failed: {chunk['error']}")
        for choice in chunk["choices"]:
            tokens = choice.get("token_ids")
            if tokens is None:
                raise EngineError("the server gives no token ids; vLLM 0.11 or newer is needed")
            reason = choice.get("finish_reason")
            self._count(generated_tokens=len(tokens))
            for position, token in enumerate(tokens):
                last = reason is not None and position == len(tokens) - 1
                stream.put(TokenOutput(token, finish_reason=_reason(reason) if last else None))
            if reason is not None and not tokens:
                stream.put(TokenOutput(None, finish_reason=_reason(reason)))

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, value in more.items():
                self._counts[name] += value


class _Request:
    """One request on its way."""

    def __init__(self, prompt: Prompt, sampling: Sampling, *, refused: bool) -> None:
        self.prompt = prompt
        self.answer: httpx.Response | None = None
        self._sampling = sampling
        self._has_constraint = refused

    def cancel(self) -> None:
        """Wake the reader: closing the connection stops the server's work."""
        answer = self.answer
        if answer is not None:
            connection = answer.extensions["network_stream"].get_extra_info("socket")
            with contextlib.suppress(OSError):  # the answer may have ended meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def body(self, model: str, context_length: int) -> dict[str, Any] | None:
        """What to send; None where nothing may be generated.

        Raises:
            EngineError: the request is not possible.
        """
        sampling, tokens = self._sampling, self.prompt.tokens
        self._refuse()
        if not tokens or not all(0 <= token < VOCABULARY_SIZE for token in tokens):
            raise EngineError(f"a prompt is one or more token ids below {VOCABULARY_SIZE}")
        room = context_length - len(tokens)
        if room <= 0:
            raise ContextOverflow(
                f"the prompt has {len(tokens)} tokens but the context has {context_length}"
            )
        limit = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        if limit == 0:
            return None
        stops = ASSISTANT_ACTION_ENDS if sampling.stop_tokens is None else sampling.stop_tokens
        return {
            "model": model,
            "prompt": list(tokens),
            "max_tokens": limit,
            "stream": True,
            "return_token_ids": True,
            "skip_special_tokens": False,
            "ignore_eos": True,
            "stop_token_ids": sorted(stops),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "repetition_penalty": sampling.repetition_penalty,
            "seed": sampling.seed,
            "cache_salt": sampling.cache_salt or None,
        }

    def _refuse(self) -> None:
        asked = {
            "constraint": self._has_constraint,
            "logprobs": self._sampling.logprobs is not None,
            "prompt_logprobs": self._sampling.prompt_logprobs is not None,
            **{f"extra {key!r}": True for key in self._sampling.extra},
        }
        for feature, wanted in asked.items():
            if wanted:
                raise Unsupported(f"the vllm engine does not support {feature}")


def _reason(reason: str) -> Any:
    return "length" if reason == "length" else "stop"


def _refused(answer: httpx.Response) -> EngineError:
    answer.read()
    text = answer.text[:500]
    if "maximum context length" in text:
        return ContextOverflow(f"the vLLM server refused the prompt: {text}")
    return EngineError(f"the vLLM server answered {answer.status_code}: {text}")
