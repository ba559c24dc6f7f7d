"""The lane of engine `transformers` that is Transformers' own continuous batching.

One manager of Transformers runs all its requests in the same steps. Its random numbers and its way
to choose are the manager's, not the request's, so there is one lane for greedy answers and one for
sampled ones, and only requests that want nothing else come here. Its cache is a fixed pool without
prefix reuse; a request that outgrows its share of the pool leaves with `outgrown`.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from gptoss_harmony import TokenOutput
from gptoss_harmony.errors import EngineError
from gptoss_serve.engines.transformers_counts import Counts
from gptoss_serve.engines.transformers_model import twin
from gptoss_serve.engines.transformers_request import COLDEST, Request

PAGE = 256  # positions of a block of the pool
SHARES = 2  # a request may take one of so many parts of the pool
LEAST_ROOM = 64  # answers that could not grow by so much are not worth the move
_SETTINGS = (
    "num_blocks",
    "page_size",
    "max_batch_tokens",
    "max_requests_per_batch",
    "per_request_processors",
    "auto_switch_to_flash",
)
# A manager makes the step that requests set only where its own value is not 1.
_OTHER_TEMPERATURE = 0.5


def missing_batching(model: Any) -> str | None:
    """Say why continuous batching cannot run with this release and model, or None."""
    import transformers

    config = getattr(transformers, "ContinuousBatchingConfig", None)
    known = {entry.name for entry in fields(config)} if config is not None else set()
    if lacking := sorted(set(_SETTINGS) - known):
        return (
            f"transformers {transformers.__version__} has no continuous batching with "
            f"{lacking[0]}; upgrade it with: pip install --upgrade transformers"
        )
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        return "the model is spread over several devices"
    return None


class Batch:
    """Requests that share every step.

    Args:
        model: a causal language model of Transformers; its tensors are shared, not copied.
        counts: where the work is counted.
        greedy: whether the answers take the likeliest token, or are sampled.
        chunk: tokens that one step takes through the model.
        most: requests in a step.
        capacity: bytes of the pool.
        bytes_per_token: keys and values of one position.
        outgrown: gets a request for which the pool is too small, with what it has so far.
    """

    def __init__(
        self,
        model: Any,
        counts: Counts,
        *,
        greedy: bool,
        chunk: int,
        most: int,
        capacity: int,
        bytes_per_token: int,
        outgrown: Callable[[Request], None],
    ) -> None:
        self._model = model
        self._counts = counts
        self._greedy = greedy
        self._chunk = max(chunk, most)
        self._most = most
        self._blocks = max(2 * SHARES, capacity // (PAGE * bytes_per_token))
        self._pool_bytes = self._blocks * PAGE * bytes_per_token
        self._outgrown = outgrown
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Request, int]] = {}  # and its length when it came
        self._names = itertools.count()
        self._manager: Any = None
        self._reader: threading.Thread | None = None
        self._started = threading.Event()
        self._leaving = False
        self._broken: BaseException | None = None

    def takes(self, request: Request) -> bool:
        """Whether a request can run here; none can once the manager has failed."""
        if self._broken is not None:
            return False
        greedy = request.sampling.temperature == 0
        room = self._share - len(request.tokens)
        return request.batchable and greedy == self._greedy and room >= LEAST_ROOM

    @property
    def held_bytes(self) -> int:
        """Bytes of the pool; 0 until the first request."""
        return 0 if self._manager is None else self._pool_bytes

    @property
    def _share(self) -> int:
        return self._blocks * PAGE // SHARES

    def add(self, request: Request) -> None:
        """Start a request in the next step."""
        self._start()
        name = f"request-{next(self._names)}"
        request.wake = lambda: self._cancel(name)
        request.stream.begin(cached_tokens=0)
        with self._lock:
            self._running[name] = (request, len(request.tokens))
        if request.cancelled:
            self._cancel(name)
            return
        most = min(request.limit, self._share) - len(request.tokens)
        asked = {} if self._greedy else {"temperature": max(COLDEST, request.sampling.temperature)}
        accepted = self._broken is None and self._manager.add_request(
            request.tokens,
            request_id=name,
            max_new_tokens=most,
            streaming=True,
            eos_token_id=sorted(request.stop_tokens) or -1,
            **asked,
        )
        if not accepted:
            problem = f"continuous batching stopped working: {self._broken!r}"
            self._fail(name, EngineError(f"{problem}; requests take turns from now on"))

    def leave(self) -> None:
        """Stop after the present step and give up the model and the pool."""
        self._leaving = True
        if self._reader is not None:
            self._reader.join()
        self._model = self._manager = None

    def _start(self) -> None:
        """Make the pool and start the threads, at the first request."""
        with self._lock:
            if self._reader is None:
                self._reader = threading.Thread(target=self._work, daemon=True)
                self._reader.start()
        self._started.wait()

    def _work(self) -> None:
        """Own the manager from its start to its end, and hand out what it makes."""
        try:
            self._manager = self._make_manager()
            self._manager.start()  # from here, so that its thread is a daemon as this one is
        except Exception as error:
            self._break(error)
        finally:
            self._started.set()
        while not self._leaving and self._broken is None:
            self._read()
        if self._manager is not None:
            self._manager.stop(block=True, hard_stop=True)
        for name in list(self._running):
            self._fail(name, EngineError("continuous batching stopped"))

    def _break(self, error: Exception) -> None:
        self._broken = error
        logging.getLogger(__name__).error(
            "continuous batching stopped working (%s); requests take turns from now on", error
        )

    def _make_manager(self) -> Any:
        import transformers

        settings: dict[str, Any] = {"do_sample": not self._greedy, "eos_token_id": -1}
        if not self._greedy:
            settings |= {"temperature": _OTHER_TEMPERATURE, "top_k": None, "top_p": None}
        return twin(self._model).init_continuous_batching(
            generation_config=transformers.GenerationConfig(**settings),
            continuous_batching_config=transformers.ContinuousBatchingConfig(
                num_blocks=self._blocks,
                page_size=PAGE,
                max_batch_tokens=self._chunk,
                max_requests_per_batch=self._most,
                per_request_processors=not self._greedy,
                auto_switch_to_flash=False,
            ),
        )

    def _read(self) -> None:
        output = self._manager.get_result(timeout=0.2)
        if output is None:
            if not self._manager.is_running():
                self._break(EngineError("its thread ended; the log of transformers says why"))
            return
        try:
            self._take(output)
        except Exception as error:
            self._fail(output.request_id, error)

    def _take(self, output: Any) -> None:
        """Hand out the new tokens of a request."""
        name = output.request_id
        with self._lock:
            request, came_with = self._running.get(name, (None, 0))
        if request is None:
            return  # it was cancelled
        if request.cancelled:
            self._cancel(name)
            return
        if output.error is not None:
            raise EngineError(f"continuous batching failed: {output.error}")
        for token in output.generated_tokens[len(request.tokens) - came_with :]:
            reason = request.accept(token)
            self._counts.add(generated=1)
            if reason is not None:
                self._end(name, TokenOutput(token, finish_reason=reason))
                return
            request.stream.put(TokenOutput(token))
        if output.is_finished() and self._forget(name):
            self._outgrown(request)

    def _cancel(self, name: str) -> None:
        self._end(name, TokenOutput(None, finish_reason="cancelled"))
        if self._manager is not None:
            self._manager.cancel_request(name)

    def _end(self, name: str, last: TokenOutput) -> None:
        if request := self._forget(name):
            self._counts.ended()
            request.stream.put(last)

    def _fail(self, name: str, error: Exception) -> None:
        if request := self._forget(name):
            self._counts.ended()
            request.stream.fail(error)

    def _forget(self, name: str) -> Request | None:
        """Take a request out; None where another thread already has."""
        with self._lock:
            return self._running.pop(name, (None, 0))[0]
