"""Engine `torch`: the reference model served to many threads at once.

```
engine = TorchEngine.open("nano", TorchOptions(device="cpu"))
for output in engine.generate([200006, 882, 200008], Sampling(max_tokens=8)):
    print(output.token)
engine.close()
```

`generate` checks a request and queues it; one worker thread takes all requests forward together,
step by step, and feeds their streams. `docs/explanation/torch-engine.md` walks through it.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import torch

from gptoss_core.batcher import Batcher
from gptoss_core.device import choose_device
from gptoss_core.memory import CACHE_SHARE, free_bytes, peak_bytes
from gptoss_core.model import Transformer
from gptoss_core.options import TorchOptions, choose_context, choose_dtype, choose_experts
from gptoss_core.parallel import Plan
from gptoss_core.request import Request
from gptoss_core.runner import Runner
from gptoss_core.sampling import LogitsStep
from gptoss_core.scheduler import Scheduler
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config import ModelConfig
from gptoss_harmony.engine import Constraint, EngineSpec, EngineStats, Prompt, Sampling
from gptoss_harmony.errors import ContextOverflow, EngineError, Unsupported
from gptoss_harmony.generation import TokenStream
from gptoss_harmony.tokens import ASSISTANT_ACTION_ENDS

SUPPORTS = frozenset(
    {"constraint", "logprobs", "prompt_logprobs", "seed", "batching", "exact_tokens"}
)
UNKNOWN_FREE_BYTES = 4 << 30  # assumed where a system does not say how much memory is free


class TorchEngine:
    """Serves a `Transformer`.

    Args:
        model: the weights, already on their device.
        options: limits; device, dtype and experts are taken from the model as it is.
        model_id: what the engine says it serves.
        thermostats: research steps by name. A request switches one on with a key of that name in
            `Sampling.extra`; the step reads the value from `SamplingRow.sampling`.
        share: makes several processes agree on sampled tokens; see `parallel`.
    """

    Options: ClassVar[type[TorchOptions]] = TorchOptions

    def __init__(
        self,
        model: Transformer,
        options: TorchOptions,
        *,
        model_id: str = "gpt-oss",
        thermostats: Mapping[str, LogitsStep] | None = None,
        share: Callable[[list[int]], list[int]] | None = None,
    ) -> None:
        self._device = model.device
        self._known_extra = frozenset(thermostats or {})
        self._threads = options.threads
        self._longest = model.config.max_context_length
        self._spec = EngineSpec(
            name="torch",
            model_id=model_id,
            context_length=choose_context(options, model.config),
            vocabulary_size=model.config.vocab_size,
            device=str(model.device),
            supports=SUPPORTS,
        )
        steps = tuple((thermostats or {}).values())
        self._batcher: Batcher | None = Batcher(
            Runner(model, thermostats=steps, share=share),
            Scheduler(
                max_batch=options.max_batch,
                chunk=options.prefill_chunk,
                deterministic=options.deterministic,
            ),
            capacity=cache_capacity(options, model.device),
            prefix_reuse=options.prefix_reuse and not options.deterministic,
        )
        self._last_stats = self._batcher.stats  # what `stats` says once the engine is closed
        self._wake = threading.Condition()
        self._arrived: list[Request] = []
        self._closing = False
        self._leaving = False
        self._broken: BaseException | None = None
        self._worker = threading.Thread(
            target=self._work, args=(self._batcher,), name="gptoss-torch", daemon=True
        )
        self._worker.start()
        atexit.register(self._leave)

    @classmethod
    def open(cls, checkpoint: str, options: TorchOptions) -> Self:
        """Load a checkpoint.

        Raises:
            HarmonyError: no such checkpoint or device, or too little memory.
        """
        model = load_model(checkpoint, options, device=choose_device(options.device))
        return cls(model, options, model_id=Path(checkpoint).name)

    @property
    def spec(self) -> EngineSpec:
        """What the engine is and supports."""
        return self._spec

    def generate(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
    ) -> TokenStream:
        """Start an answer and return at once; failures come out of `next()`.

        An answer that is dropped without being read to its end is cancelled.
        """
        prompt = Prompt.of(prompt)
        stream = TokenStream(on_cancel=self._nudge)
        if refusal := self._refusal(prompt, sampling):
            stream.fail(refusal)
            return stream
        request = self._request(prompt, sampling, constraint, stream)
        with self._wake:
            if self._broken is not None:
                stream.fail(EngineError(f"the engine stopped working: {self._broken!r}; reopen it"))
            elif self._closing:
                stream.fail(EngineError("the engine is closed; open a new one"))
            else:
                self._arrived.append(request)
                self._wake.notify()
        return stream

    def stats(self) -> EngineStats:
        """Counters and memory right now."""
        batcher = self._batcher
        stats = self._last_stats if batcher is None else batcher.stats
        return replace(
            stats,
            waiting=stats.waiting + len(self._arrived),
            peak_memory_bytes=peak_bytes(self._device),
        )

    def close(self) -> None:
        """Let running answers finish, refuse new ones, free the device. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._worker.join()
        atexit.unregister(self._leave)
        with self._wake:  # several threads may close at once
            batcher, self._batcher = self._batcher, None  # and with it the weights and the caches
        if batcher is not None:
            self._last_stats = replace(batcher.stats, kv_bytes_used=0)
            del batcher
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _refusal(self, prompt: Prompt, sampling: Sampling) -> EngineError | None:
        """Why a request cannot be served, or None."""
        context, vocabulary = self._spec.context_length, self._spec.vocabulary_size
        length = len(prompt.tokens)
        if unknown := sorted(set(sampling.extra) - self._known_extra):
            known = ", ".join(sorted(self._known_extra)) or "none"
            return Unsupported(f"engine torch has no option {unknown[0]!r}; it has: {known}")
        if not length:
            return EngineError("the prompt is empty; give at least one token")
        if (worst := max(prompt.tokens)) >= vocabulary or (worst := min(prompt.tokens)) < 0:
            where = prompt.tokens.index(worst)
            return EngineError(
                f"token {worst} at position {where} of the prompt is not in 0..{vocabulary - 1}"
            )
        if length > context or (length == context and sampling.max_tokens != 0):
            more = " or raise --context" if context < self._longest else ""
            return ContextOverflow(
                f"the prompt has {length} tokens and the context {context}, which leaves no room "
                f"for an answer; shorten the prompt{more}"
            )
        return None

    def _request(
        self,
        prompt: Prompt,
        sampling: Sampling,
        constraint: Constraint | None,
        stream: TokenStream,
    ) -> Request:
        context, stops = self._spec.context_length, sampling.stop_tokens
        room = context if sampling.max_tokens is None else sampling.max_tokens
        return Request(
            prompt,
            sampling,
            constraint=constraint,
            stream=stream,
            stop_tokens=ASSISTANT_ACTION_ENDS if stops is None else frozenset(stops),
            limit=min(context, len(prompt.tokens) + room),
        )

    # The worker thread.

    def _nudge(self) -> None:
        with self._wake:
            self._wake.notify()

    def _leave(self) -> None:
        """Stop after the present step: at exit, a thread that is still in PyTorch would crash."""
        with self._wake:
            self._closing = self._leaving = True
            self._wake.notify()
        self._worker.join()

    def _work(self, batcher: Batcher) -> None:
        """Step until the engine is closed and everything that was accepted has ended."""
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                while self._take_arrived(batcher):
                    batcher.step()
            batcher.fail_all(EngineError("the program ends"))  # only then is anything left
        except BaseException as error:
            with self._wake:
                self._broken = error
                arrived, self._arrived = self._arrived, []
            for request in arrived:
                batcher.add(request)
            batcher.fail_all(error)

    def _take_arrived(self, batcher: Batcher) -> bool:
        """Wait for work and queue it; False when there will be none any more."""
        with self._wake:
            self._wake.wait_for(
                lambda: self._arrived or batcher.busy or self._closing or self._leaving
            )
            arrived, self._arrived = self._arrived, []
        for request in arrived:
            batcher.add(request)
        return batcher.busy and not self._leaving


def load_model(
    checkpoint: str,
    options: TorchOptions,
    *,
    device: torch.device,
    plan: Callable[[ModelConfig], Plan] = Plan.whole,
) -> Transformer:
    """Read the weights as the options say; memory is checked before anything is read."""
    dtype = choose_dtype(options.dtype)
    config = Checkpoint.open(checkpoint).config
    choose_context(options, config)  # refuse before anything is read
    experts = choose_experts(options.experts, config, dtype)
    return Transformer.from_checkpoint(
        checkpoint, device=device, dtype=dtype, experts=experts, plan=plan
    )


def cache_capacity(options: TorchOptions, device: torch.device) -> int:
    """Bytes that caches may take: as asked, or a share of what is free once the weights are in."""
    if options.kv_memory is not None:
        return int(options.kv_memory * 2**30)
    free = free_bytes(device)
    return int((UNKNOWN_FREE_BYTES if free is None else free) * CACHE_SHARE[device.type])
