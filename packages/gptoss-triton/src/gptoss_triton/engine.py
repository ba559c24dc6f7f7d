"""Engine `triton`: the fast path on one NVIDIA GPU.

```
engine = TritonEngine.open("gpt-oss-20b", TritonOptions(context=32768))
for output in engine.generate([200006, 882, 200008], Sampling(max_tokens=8)):
    print(output.token)
engine.close()
```

`generate` checks a request and queues it. One worker thread plans a step, hands it to the GPU, and
while the GPU computes it, takes the tokens of the step before: the GPU never waits for Python
unless a grammar or a penalty needs the last token first. `docs/explanation/triton-engine.md` walks
through it.
"""

from __future__ import annotations

import importlib.util
import threading
from collections import deque
from collections.abc import Sequence as Tokens
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import torch

from gptoss_harmony.engine import Constraint, EngineSpec, EngineStats, Prompt, Sampling, TokenOutput
from gptoss_harmony.errors import EngineError, OutOfMemory
from gptoss_harmony.generation import TokenStream
from gptoss_harmony.tokens import ASSISTANT_ACTION_ENDS
from gptoss_triton.errors import ConstraintFailed, UnsupportedGpu
from gptoss_triton.options import TritonOptions
from gptoss_triton.refusal import refusal_of
from gptoss_triton.request import Request
from gptoss_triton.sequence import Sequence
from gptoss_triton.tuning import Tuning

if TYPE_CHECKING:  # these need Triton, which exists on Linux only
    from gptoss_triton.build import Machine
    from gptoss_triton.runner import Drawn, Flight

SUPPORTS = frozenset(
    {"constraint", "logprobs", "prompt_logprobs", "seed", "batching", "exact_tokens"}
)


class TritonEngine:
    """Serves a model that is already on its device.

    Args:
        machine: weights, pages, scheduler and runner; see `build_machine`.
        model_id: what the engine says it serves.
    """

    Options: ClassVar[type[TritonOptions]] = TritonOptions

    def __init__(self, machine: Machine, *, model_id: str = "gpt-oss") -> None:
        self._machine = machine
        self.memory = machine.memory
        self._spec = EngineSpec(
            name="triton",
            model_id=model_id,
            context_length=machine.memory.context,
            vocabulary_size=machine.config.vocab_size,
            device=machine.device_name,
            supports=SUPPORTS,
        )
        self._requests: dict[int, Request] = {}
        self._flights: deque[Flight] = deque()
        self._wake = threading.Condition()
        self._arrived: list[Request] = []
        self._numbers = 0
        self._closing = False
        self._broken: BaseException | None = None
        self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0
        self._worker = threading.Thread(target=self._work, name="gptoss-triton", daemon=True)
        self._worker.start()

    @classmethod
    def open(cls, checkpoint: str, options: TritonOptions) -> Self:
        """Load a checkpoint.

        Raises:
            HarmonyError: no such checkpoint, no usable GPU, or too little memory.
        """
        from gptoss_triton.build import build_machine, check_device, open_checkpoint

        device = check_device(options.device)
        source = open_checkpoint(checkpoint)
        return cls(build_machine(source, device, options), model_id=Path(checkpoint).name)

    @staticmethod
    def unavailable() -> str | None:
        """Why the engine cannot run on this machine, or None."""
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed, which exists on Linux only"
        if not torch.cuda.is_available():
            return "no CUDA GPU is usable"
        try:
            Tuning.for_device(torch.device("cuda", torch.cuda.current_device()))
        except UnsupportedGpu as error:
            return str(error)
        return None

    @property
    def spec(self) -> EngineSpec:
        """What the engine is and supports."""
        return self._spec

    def generate(
        self,
        prompt: Prompt | Tokens[int],
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
    ) -> TokenStream:
        """Start an answer and return at once; failures come out of `next()`.

        An answer that is dropped without being read to its end is cancelled.
        """
        prompt = Prompt.of(prompt)
        stream = TokenStream(on_cancel=self._nudge)
        if refusal := refusal_of(prompt, sampling, self._spec):
            stream.fail(refusal)
            return stream
        room = self._spec.context_length if sampling.max_tokens is None else sampling.max_tokens
        stops = sampling.stop_tokens
        with self._wake:
            if self._broken is not None:
                stream.fail(EngineError(f"the engine stopped working: {self._broken!r}; reopen it"))
                return stream
            if self._closing:
                stream.fail(EngineError("the engine is closed; open a new one"))
                return stream
            sequence = Sequence(
                number=self._numbers,
                tokens=list(prompt.tokens),
                prompt=len(prompt.tokens),
                limit=min(self._spec.context_length, len(prompt.tokens) + room),
                fresh=sampling.prompt_logprobs is not None,
                salt=sampling.cache_salt,
            )
            self._numbers += 1
            request = Request(
                sequence,
                sampling,
                constraint=constraint,
                stream=stream,
                stop_tokens=ASSISTANT_ACTION_ENDS if stops is None else frozenset(stops),
            )
            self._arrived.append(request)
            self._wake.notify()
        return stream

    def stats(self) -> EngineStats:
        """Counters and memory right now."""
        scheduler, memory = self._machine.scheduler, self.memory
        full, windowed = self._machine.page_bytes
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self._arrived),
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            generated_tokens=self._generated_tokens,
            kv_bytes_used=scheduler.full.used * full + scheduler.windowed.used * windowed,
            kv_bytes_capacity=memory.pages,
            peak_memory_bytes=self._machine.peak_bytes(),
        )

    def close(self) -> None:
        """Let running answers finish, refuse new ones, free the device. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._worker:
            self._worker.join()
            self._machine.free()

    # The worker thread.

    def _nudge(self) -> None:
        with self._wake:
            self._wake.notify()

    def _work(self) -> None:
        """Step until the engine is closed and everything that was accepted has ended."""
        try:
            with torch.inference_mode(), self._machine.on_device():
                while self._take_arrived():
                    self._drop_cancelled()
                    self._turn()
        except BaseException as error:
            with self._wake:
                self._broken = error
                arrived, self._arrived = self._arrived, []
            for request in [*self._requests.values(), *arrived]:
                request.fail(error)
            self._requests.clear()

    def _take_arrived(self) -> bool:
        """Wait for work and queue it; False when there will be none any more."""
        with self._wake:
            self._wake.wait_for(lambda: self._arrived or self._busy or self._closing)
            arrived, self._arrived = self._arrived, []
        for request in arrived:
            self._requests[request.sequence.number] = request
            self._machine.scheduler.add(request.sequence)
        return self._busy

    @property
    def _busy(self) -> bool:
        return self._machine.scheduler.busy or bool(self._flights)

    def _drop_cancelled(self) -> None:
        """End what nobody waits for any more."""
        for request in [request for request in self._requests.values() if request.cancelled]:
            self._end(request)
            request.cancel()

    def _end(self, request: Request) -> None:
        self._machine.scheduler.finish(request.sequence)
        self._requests.pop(request.sequence.number, None)

    def _turn(self) -> None:
        """Launch a step if there is one, then take the tokens that are due."""
        launched = self._launch()
        waits = any(request.waits for request in self._requests.values())
        ahead = 1 if launched and not waits else 0
        while len(self._flights) > ahead:
            flight = self._flights.popleft()
            tokens = flight.wait()
            for scores in flight.scores:
                scores.deliver()
            for drawn in tokens:
                self._deliver(drawn)

    def _launch(self) -> bool:
        """Plan and launch; False if there is nothing to launch now."""
        scheduler = self._machine.scheduler
        step = scheduler.plan(may_preempt=not self._flights)
        if step is None:
            return False
        for sequence in step.admitted:
            request = self._requests[sequence.number]
            if not request.begun:
                self._prompt_tokens += sequence.prompt
                self._cached_tokens += sequence.cached or 0
            request.begin()
        try:
            flight = self._machine.runner.launch(step, self._requests)
        except ConstraintFailed as failure:
            request = self._requests[failure.number]
            self._end(request)
            request.fail(failure)
            return False
        except torch.cuda.OutOfMemoryError as error:
            self._fail_step([*step.decode, *(sequence for sequence, _ in step.chunks)], error)
            return False
        scheduler.launched(step)
        self._flights.append(flight)
        return True

    def _fail_step(self, sequences: list[Sequence], error: BaseException) -> None:
        """The plan was wrong about memory: these requests end, the others go on."""
        torch.cuda.empty_cache()
        failure = OutOfMemory(
            f"the GPU ran out of memory in this step ({error}); lower --gpu-memory or --step-tokens"
        )
        for sequence in sequences:
            request = self._requests[sequence.number]
            self._end(request)
            request.fail(failure)

    def _deliver(self, drawn: Drawn) -> None:
        """Give a token to its consumer and account for it."""
        request, scheduler = drawn.request, self._machine.scheduler
        sequence = request.sequence
        if sequence.finished:
            scheduler.drew(sequence, drawn.token, ends=True)
            return
        if sequence.limit <= sequence.prompt:
            self._end(request)
            request.put(TokenOutput(None, finish_reason="length"))
            return
        try:
            reason = request.accept(drawn.token)
        except EngineError as error:
            self._end(request)
            request.fail(error)
            return
        self._generated_tokens += 1
        asked = request.sampling.logprobs is not None
        request.put(
            TokenOutput(
                drawn.token, drawn.logprob if asked else None, drawn.top, finish_reason=reason
            )
        )
        scheduler.drew(sequence, drawn.token, ends=reason is not None)
        if reason is not None:
            self._requests.pop(sequence.number, None)
