"""Engine `vllm`: vLLM, spoken to in token ids; a worker of our own, or a server anywhere.

`/v1/completions` of vLLM takes a prompt of token ids, and with `return_token_ids` gives the ids it
generated, special tokens included: what goes over the wire is exactly what our own engines see, so
that chat, tools and APIs are the same. One machine or many is vLLM's business.

```
gptoss chat gpt-oss-120b --backend vllm --engine-url http://gpu-box:8000/v1
gptoss chat gpt-oss-120b --backend vllm --engine-python ~/vllm-venv/bin/python
```
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from gptoss_harmony import Constraint, EngineSpec, EngineStats, Prompt, Sampling
from gptoss_harmony.errors import EngineError, UsageError
from gptoss_harmony.generation import TokenStream
from gptoss_harmony.tokens import VOCABULARY_SIZE
from gptoss_serve.engines.hugging_face_folder import Experts, hugging_face_folder
from gptoss_serve.engines.vllm_answer import Answer, ServedModel
from gptoss_serve.engines.vllm_process import VllmProcess, parse_arguments
from gptoss_serve.engines.vllm_server import WHOLE_GRAMMAR, VllmServer

_DEFAULT_URL = "http://127.0.0.1:8000/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmOptions:
    """Which server, or how to start one."""

    engine_url: str = field(
        default="", metadata={"help": f"base URL of a vLLM server (default {_DEFAULT_URL})"}
    )
    engine_key: str = field(
        default="", metadata={"help": "key of the server; empty reads VLLM_API_KEY"}
    )
    engine_python: str = field(
        default="",
        metadata={"help": "a Python that has vLLM: start a worker with it, instead of a server"},
    )
    engine_args: str = field(
        default="",
        metadata={"help": "vLLM's own options for the worker: 'tensor_parallel_size=2 ...'"},
    )
    experts: Experts = field(
        default="mxfp4",
        metadata={"help": "what the worker loads; bf16 for processors without MXFP4"},
    )
    context: int | None = field(
        default=None,
        metadata={"help": "most tokens of prompt and answer; the model's own if unset"},
    )
    seconds: float = field(
        default=600.0, metadata={"help": "how long the server may be silent, in seconds"}
    )

    def __post_init__(self) -> None:
        """Refuse options that exclude one another."""
        if self.engine_python and self.engine_url:
            raise UsageError("give --engine-url or --engine-python, not both")
        if self.engine_args and not self.engine_python:
            raise UsageError(
                "--engine-args are for the worker that --engine-python starts; a server that runs "
                "has its own"
            )
        if self.context is not None and self.context < 1:
            raise UsageError(f"--context must be 1 or more, not {self.context}")


class VllmEngine:
    """vLLM as an engine.

    Args:
        http: a client of its API; `close` closes it.
        model: the name under which it serves the model.
        context: most tokens of prompt and answer; None takes the server's limit.
        worker: the process behind it if it is ours; `close` ends it.

    Raises:
        httpx.HTTPError, ValueError, KeyError, TypeError: no vLLM answers.
        UsageError: it does not serve the model.
    """

    Options = VllmOptions

    def __init__(
        self,
        http: httpx.Client,
        model: str,
        *,
        context: int | None = None,
        worker: VllmProcess | None = None,
    ) -> None:
        self._http = http
        self._worker = worker
        self._lock = threading.Lock()
        self._closed = False
        self._running = 0
        self._idle = threading.Condition(self._lock)
        self._counts = {"prompt_tokens": 0, "cached_tokens": 0, "generated_tokens": 0}
        server = VllmServer(http, fate=(lambda: None) if worker is None else worker.fate)
        models = server.models()
        if model not in models:
            raise UsageError(
                f"the vLLM server at {http.base_url} serves {', '.join(models) or 'nothing'}, "
                f"not {model!r}"
            )
        length = int(models[model].get("max_model_len") or 131_072)
        self._model = ServedModel(
            server=server,
            name=model,
            context_length=length if context is None else min(length, context),
            features=server.features(model),
        )
        self.spec = EngineSpec(
            name="vllm",
            model_id=model,
            context_length=self._model.context_length,
            vocabulary_size=VOCABULARY_SIZE,
            device="remote" if worker is None else "worker",
            supports=frozenset({"seed", "batching", "exact_tokens"})
            | (self._model.features - {WHOLE_GRAMMAR}),
        )

    @classmethod
    def open(cls, checkpoint: str, options: VllmOptions) -> Self:
        """Start the worker, or find the server; then see what it can do.

        Args:
            checkpoint: for a worker whatever names a checkpoint; for a server the name under which
                it serves the model.
            options: which of the two.

        Raises:
            HarmonyError: there is no server, it does not serve the model, or vLLM did not start.
        """
        timeout = httpx.Timeout(options.seconds, connect=10.0)
        if options.engine_python:
            return cls._over_worker(checkpoint, options, timeout)
        key = options.engine_key or os.environ.get("VLLM_API_KEY", "")
        url = options.engine_url or _DEFAULT_URL
        http = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            limits=httpx.Limits(max_connections=None),
        )
        try:
            return cls(http, checkpoint, context=options.context)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            http.close()
            raise EngineError(
                f"no vLLM server answers at {url} ({error}); start one with: vllm serve MODEL, "
                "name another with --engine-url, or give --engine-python"
            ) from error
        except BaseException:
            http.close()
            raise

    @classmethod
    def _over_worker(cls, checkpoint: str, options: VllmOptions, timeout: httpx.Timeout) -> Self:
        arguments = parse_arguments(options.engine_args)
        if options.context is not None:
            arguments = ["--max-model-len", str(options.context), *arguments]
        folder = hugging_face_folder(checkpoint, experts=options.experts)
        worker = VllmProcess.start(
            options.engine_python, folder, name=_name(checkpoint), arguments=arguments
        )
        http = worker.client(timeout=timeout)
        try:
            return cls(http, worker.name, worker=worker)
        except BaseException:
            http.close()
            worker.close()
            raise

    def generate(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
    ) -> TokenStream:
        """Start an answer; a thread of its own reads the server's stream."""
        answer = Answer(
            self._model,
            Prompt.of(prompt),
            sampling=sampling,
            constraint=constraint,
            count=self._count,
        )
        stream = TokenStream(on_cancel=answer.canceller.cancel)
        with self._lock:
            closed = self._closed
            self._running += not closed
        if closed:
            stream.fail(EngineError("the engine is closed; open a new one"))
        else:
            threading.Thread(target=self._run, args=(answer.run, stream), daemon=True).start()
        return stream

    def stats(self) -> EngineStats:
        """Counters of this side; the server's memory is its own."""
        with self._lock:
            return EngineStats(running=self._running, **self._counts)

    def close(self) -> None:
        """Wait for running answers, then close the connections and end the worker."""
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: self._running == 0)
        self._http.close()
        if self._worker is not None:
            self._worker.close()

    def _run(self, answer: Callable[[TokenStream], None], stream: TokenStream) -> None:
        try:
            answer(stream)
        except Exception as error:  # whatever happens must reach the reader
            stream.fail(error)
        finally:
            with self._lock:
                self._running -= 1
                self._idle.notify_all()

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, value in more.items():
                self._counts[name] += value


def _name(checkpoint: str) -> str:
    """The model of a worker: the last part of its path that says something."""
    parts = [part for part in Path(checkpoint).parts if part not in ("original", "..", "/")]
    return parts[-1] if parts else "gpt-oss"
