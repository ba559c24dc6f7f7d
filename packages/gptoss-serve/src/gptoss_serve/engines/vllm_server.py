"""A vLLM server behind an HTTP client: its models, what it can do, its answers as they come.

What a server can do depends on its version and flags, so it is asked: one token with everything
that we would rely on. What it does not do is not declared, and then refused by name.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import httpx

from gptoss_harmony import TokenOutput
from gptoss_harmony.errors import ContextOverflow, EngineError
from gptoss_harmony.tokens import START
from gptoss_serve.engines.canceller import Canceller
from gptoss_serve.engines.vllm_wire import Json, cached_tokens, outputs

# A token that no model says by itself: who says it obeys.
_UNLIKELY: Final = 200_018
WHOLE_GRAMMAR: Final = "grammar of the whole answer"
_PROBES: Final[dict[str, Json]] = {
    WHOLE_GRAMMAR: {"structured_outputs": {"grammar": f"start: <[{_UNLIKELY}]>"}},
    "constraint": {"allowed_token_ids": [_UNLIKELY]},
    "logprobs": {"logprobs": 1, "return_tokens_as_token_ids": True},
    "prompt_logprobs": {"prompt_logprobs": 1},
}


class RequestRefused(EngineError):
    """The server understood the request and will not have it."""


class VllmServer:
    """One server.

    Args:
        http: a client whose base URL is the server's.
        fate: says how the server ended, where it is ours and has; None otherwise.
    """

    def __init__(self, http: httpx.Client, *, fate: Callable[[], str | None]) -> None:
        self._http = http
        self._fate = fate

    def models(self) -> dict[str, Json]:
        """Return what it serves, by name.

        Raises:
            httpx.HTTPError, ValueError, KeyError, TypeError: nobody answers, or not a vLLM.
        """
        answer = self._http.get("models")
        answer.raise_for_status()
        return {entry["id"]: entry for entry in answer.json()["data"]}

    def features(self, model: str) -> frozenset[str]:
        """Try out what it does: `constraint`, `logprobs`, `prompt_logprobs`, `WHOLE_GRAMMAR`.

        Raises:
            EngineError: the connection broke.
        """
        return frozenset(
            name for name, fields in _PROBES.items() if self._does(model, name, fields)
        )

    def _does(self, model: str, name: str, fields: Json) -> bool:
        body = {"model": model, "prompt": [START], "max_tokens": 1, "return_token_ids": True}
        answer = self._post({**body, "ignore_eos": True, **fields})
        if answer.status_code != 200:
            return False
        choice = answer.json()["choices"][0]
        if name.endswith("logprobs"):
            return bool(choice.get(name))
        return bool(choice.get("token_ids") == [_UNLIKELY])

    def whole(self, body: Json) -> Json:
        """Ask without streaming.

        Raises:
            EngineError: it refused, or the connection broke.
        """
        answer = self._post(body)
        if answer.status_code != 200:
            raise _refused(answer)
        found: Json = answer.json()
        return found

    def _post(self, body: Json) -> httpx.Response:
        with self._explained():
            return self._http.post("completions", json=body)

    def stream(
        self, body: Json, canceller: Canceller, *, on_cached: Callable[[int], None]
    ) -> Generator[TokenOutput, None, None]:
        """Yield tokens as they come; the last has the finish reason. Ends early when cancelled.

        The number of cached tokens comes after the last token, which is held back for it.

        Args:
            body: the request.
            canceller: cuts it off.
            on_cached: called with the number of prompt tokens that were in the cache.

        Raises:
            EngineError: it refused or failed, or the connection broke.
        """
        last: TokenOutput | None = None
        with (
            self._explained(canceller),
            self._http.stream("POST", "completions", json=body) as answer,
        ):
            canceller.watch(answer)
            if answer.status_code != 200:
                raise _refused(answer)
            for chunk in _chunks(answer):
                for output in _outputs(chunk):
                    if output.finish_reason is None:
                        yield output
                    else:
                        last = output
                if chunk.get("usage"):
                    on_cached(cached_tokens(chunk["usage"]))
        if last is not None:
            yield last
        elif not canceller.cancelled:
            raise EngineError("the vLLM server ended its stream too early")

    @contextlib.contextmanager
    def _explained(self, canceller: Canceller | None = None) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.StreamError) as error:
            if canceller is None or not canceller.cancelled:
                reason = self._fate() or f"the vLLM server stopped answering: {error!r}"
                raise EngineError(reason) from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise EngineError(f"the vLLM server sent what cannot be read: {error!r}") from error


def _chunks(answer: httpx.Response) -> Iterator[Json]:
    for line in answer.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def _outputs(chunk: Json) -> Iterator[TokenOutput]:
    if "error" in chunk:
        raise EngineError(f"the vLLM server failed: {_words(chunk['error'])}")
    for choice in chunk["choices"]:
        yield from outputs(choice)


def _refused(answer: httpx.Response) -> EngineError:
    answer.read()
    try:
        text = _words(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        text = answer.text[:500]
    if "maximum context length" in text:
        return ContextOverflow(f"the vLLM server refused the prompt: {text}")
    kind = RequestRefused if answer.status_code in (400, 422) else EngineError
    return kind(f"the vLLM server answered {answer.status_code}: {text}")


def _words(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]
