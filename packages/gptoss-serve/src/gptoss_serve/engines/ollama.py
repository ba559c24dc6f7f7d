"""Engine `ollama`: a model that Ollama serves, asked for raw text.

`/api/generate` with `raw` continues a prompt without a template around it, so that conversations,
tools and APIs are ours. Its text becomes token ids again in `ollama_text`, which says what that
costs; log probabilities, grammars and exact token ids are not to be had this way.

```
gptoss chat gpt-oss:20b --backend ollama
```
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import httpx

from gptoss_harmony import Constraint, EngineSpec, EngineStats, Prompt, Sampling
from gptoss_harmony.errors import EngineError, UsageError
from gptoss_harmony.generation import TokenStream
from gptoss_harmony.tokens import VOCABULARY_SIZE
from gptoss_serve.engines.ollama_answer import Answer, refusal

_PORT = 11434
_LONGEST = 131_072  # of the published models
_CONTEXT = 32_768  # what a graphics card of 16 GB holds beside gpt-oss-20b


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaOptions:
    """Which server, and what to ask of it."""

    engine_url: str = field(
        default="",
        metadata={"help": "base URL of Ollama; empty reads OLLAMA_HOST, else 127.0.0.1:11434"},
    )
    context: int | None = field(
        default=None,
        metadata={
            "help": f"most tokens of prompt and answer, Ollama's num_ctx; unset: {_CONTEXT:,}, or "
            "what the model has"
        },
    )
    keep_alive: str = field(
        default="", metadata={"help": "how long Ollama keeps the model loaded, such as 30m or -1"}
    )
    seconds: float = field(
        default=600.0, metadata={"help": "how long Ollama may be silent, in seconds"}
    )

    def __post_init__(self) -> None:
        """Refuse values that cannot work, naming the field."""
        if self.context is not None and self.context < 1:
            raise UsageError(f"context must be at least 1, not {self.context}")


class OllamaEngine:
    """A model of an Ollama server as an engine.

    Args:
        http: a client whose base URL is the server's.
        model: the name of the model there.
        context_length: most tokens of prompt and answer.
        keep_alive: as in the options.
    """

    Options: ClassVar[type[OllamaOptions]] = OllamaOptions

    def __init__(
        self, http: httpx.Client, model: str, *, context_length: int, keep_alive: str = ""
    ) -> None:
        self._http = http
        self._model: dict[str, Any] = {"model": model}
        if keep_alive:  # a number is one of seconds; a text needs a unit
            digits = keep_alive.removeprefix("-").isdecimal()
            self._model["keep_alive"] = int(keep_alive) if digits else keep_alive
        self._idle = threading.Condition()
        self._closed = False
        self._running = self._prompt_tokens = self._generated_tokens = 0
        self.spec = EngineSpec(
            name="ollama",
            model_id=model,
            context_length=context_length,
            vocabulary_size=VOCABULARY_SIZE,
            device="remote",
            supports=frozenset({"seed"}),
        )

    @classmethod
    def open(cls, checkpoint: str, options: OllamaOptions) -> Self:
        """Ask the server for the model.

        Args:
            checkpoint: its name there; a hub id of gpt-oss is understood.
            options: which server.

        Raises:
            EngineError: no Ollama answers.
            UsageError: it does not have the model, or the model is not gpt-oss.
        """
        model = _OLLAMA_NAMES.get(checkpoint, checkpoint)
        url = server_url(options.engine_url or os.environ.get("OLLAMA_HOST", ""))
        http = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(options.seconds, connect=10.0),
            limits=httpx.Limits(max_connections=None),
        )
        try:
            longest = _model_context(http, model, url)
        except BaseException:
            http.close()
            raise
        if options.context is not None and options.context > longest:
            http.close()
            raise UsageError(f"context {options.context} is more than the {longest} of {model}")
        context = options.context or min(_CONTEXT, longest)
        return cls(http, model, context_length=context, keep_alive=options.keep_alive)

    def generate(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
    ) -> TokenStream:
        """Start an answer; a thread of its own reads the server's stream."""
        answer = Answer(
            Prompt.of(prompt),
            sampling,
            constrained=constraint is not None,
            context=self.spec.context_length,
        )
        stream = TokenStream(on_cancel=answer.canceller.cancel)
        with self._idle:
            closed = self._closed
            self._running += not closed
        if closed:
            stream.fail(EngineError("the engine is closed; open a new one"))
        else:
            threading.Thread(target=self._run, args=(answer, stream), daemon=True).start()
        return stream

    def stats(self) -> EngineStats:
        """Counters of this side; the server's memory is its own."""
        with self._idle:
            return EngineStats(
                running=self._running,
                prompt_tokens=self._prompt_tokens,
                generated_tokens=self._generated_tokens,
            )

    def close(self) -> None:
        """Wait for running answers, then close the connections."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: self._running == 0)
        self._http.close()

    def _run(self, answer: Answer, stream: TokenStream) -> None:
        try:
            answer.run(self._http, self._model, stream, self._count)
        except Exception as error:  # whatever a server does must reach the reader
            stream.fail(error)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _count(self, *, prompt: int = 0, generated: int = 0) -> None:
        with self._idle:
            self._prompt_tokens += prompt
            self._generated_tokens += generated


_OLLAMA_NAMES = {
    f"{owner}gpt-oss-{size}": f"gpt-oss:{size}"
    for owner in ("", "openai/")
    for size in ("20b", "120b")
}


def server_url(host: str) -> str:
    """Complete what a user or OLLAMA_HOST says to a base URL.

    Raises:
        UsageError: it is not the address of a server.
    """
    text = host.strip().rstrip("/")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{host!r} is not the address of an Ollama server: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise UsageError(f"{host!r} is not the address of an Ollama server: use http or https")
    name = parts.hostname or "127.0.0.1"
    name = "127.0.0.1" if name in ("0.0.0.0", "::") else name  # what a server listens on
    name = f"[{name}]" if ":" in name else name
    default = _PORT if "://" not in text else {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{name}:{port or default}{parts.path}"


def _model_context(http: httpx.Client, model: str, url: str) -> int:
    """Ask what the model is; its longest context."""
    try:
        reply = http.post("api/show", json={"model": model})
        if reply.status_code == 404:
            raise UsageError(
                f"Ollama at {url} does not have {model!r}; get it with: ollama pull {model} "
                f"(it has: {', '.join(_models(http)) or 'nothing'})"
            )
        if reply.status_code != 200:
            raise refusal(reply)
        info: dict[str, Any] = reply.json().get("model_info") or {}
        kind = info.get("general.architecture", "gptoss")
        longest = int(info.get(f"{kind}.context_length") or _LONGEST)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError, TypeError) as error:
        raise EngineError(
            f"no Ollama answers at {url} ({error}); start it with: ollama serve, or name another "
            "with --engine-url"
        ) from error
    if kind not in ("gptoss", "gpt-oss"):
        raise UsageError(f"{model} is a {kind} model, whose tokens are not those of gpt-oss")
    return longest


def _models(http: httpx.Client) -> list[str]:
    return [str(entry.get("name")) for entry in http.get("api/tags").json().get("models") or []]
