"""Engine `transformers`: a model of Hugging Face Transformers behind the engine contract.

```
engine = TransformersEngine.open("nano", TransformersOptions(device="cpu"))
for output in engine.generate([200006, 882, 200008], Sampling(max_tokens=8)):
    print(output.token)
engine.close()
```

A request that comes while nothing else runs, or that wants a seed, a grammar, log probabilities or
anything else of its own, goes to `transformers_turns`, where caches are kept for prompts that begin
alike. The others share the steps of Transformers' continuous batching (`transformers_batch`).
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from gptoss_harmony import Checkpoint, Constraint, EngineSpec, EngineStats, Prompt, Sampling
from gptoss_harmony.errors import ContextOverflow, EngineError, Unsupported, UsageError
from gptoss_harmony.generation import TokenStream
from gptoss_serve.engines.transformers_batch import Batch, missing_batching
from gptoss_serve.engines.transformers_counts import Counts
from gptoss_serve.engines.transformers_model import (
    TransformersOptions,
    cache_capacity,
    context_of,
    load_model,
    missing,
)
from gptoss_serve.engines.transformers_request import EXTRA, Request
from gptoss_serve.engines.transformers_turns import Turns

SUPPORTS = frozenset({"constraint", "logprobs", "prompt_logprobs", "seed", "exact_tokens"})


class TransformersEngine:
    """Serves a causal language model of Transformers.

    Args:
        model: the model, on its device.
        options: limits; device, dtype, experts and attention are taken from the model as it is.
        context: most tokens of prompt and answer.
        model_id: what the engine says it serves.
    """

    Options: ClassVar[type[TransformersOptions]] = TransformersOptions

    def __init__(
        self, model: Any, options: TransformersOptions, *, context: int, model_id: str = "gpt-oss"
    ) -> None:
        problem = "it is off" if options.batching == "off" else missing_batching(model)
        if problem and options.batching == "on":
            raise UsageError(f"--batching on: {problem}")
        self.spec = EngineSpec(
            name="transformers",
            model_id=model_id,
            context_length=context,
            vocabulary_size=model.config.vocab_size,
            device=str(model.device),
            supports=SUPPORTS if problem else SUPPORTS | {"batching"},
        )
        self._device = model.device
        self._lock = threading.Lock()
        self._closed = False
        self._counts = Counts()
        capacity = cache_capacity(options, model.device)
        pool = 0 if problem else capacity // 4
        self._turns = Turns(
            model,
            self._counts,
            chunk=options.prefill_chunk,
            most=options.max_batch,
            capacity=capacity - 2 * pool,
            reuse=options.prefix_reuse,
        )
        self._capacity = capacity
        self._batches = (
            ()
            if problem
            else tuple(
                Batch(
                    model,
                    self._counts,
                    greedy=greedy,
                    chunk=options.prefill_chunk,
                    most=options.max_batch,
                    capacity=pool,
                    bytes_per_token=_bytes_per_token(model),
                    outgrown=self._turns.add,
                )
                for greedy in (True, False)
            )
        )
        atexit.register(self._leave)

    @classmethod
    def unavailable(cls) -> str | None:
        """Say why the engine cannot run here, or None."""
        return missing()

    @classmethod
    def open(cls, checkpoint: str, options: TransformersOptions) -> Self:
        """Load a checkpoint; one that is not in Hugging Face's layout is converted on first use.

        Raises:
            HarmonyError: no such checkpoint or device, a package is missing, or too little memory.
        """
        source = Checkpoint.open(checkpoint)
        context = context_of(options, source.config)
        model = load_model(source, options)
        return cls(model, options, context=context, model_id=Path(checkpoint).name)

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
        request = Request(prompt, sampling, constraint, context=self.spec.context_length)
        stream = request.open_stream()
        if refusal := self._refusal(prompt, sampling):
            stream.fail(refusal)
            return stream
        with self._lock:
            if self._closed:
                stream.fail(EngineError("the engine is closed; open a new one"))
                return stream
            alone = self._counts.open == 0
            self._counts.began(len(prompt.tokens))
        batch = next((b for b in self._batches if b.takes(request)), None)
        if alone or batch is None:
            self._turns.add(request)
        else:
            batch.add(request)
        return stream

    def stats(self) -> EngineStats:
        """Counters and memory right now."""
        counts, waiting = self._counts, self._turns.waiting
        return EngineStats(
            running=max(0, counts.open - waiting),
            waiting=waiting,
            prompt_tokens=counts.prompt,
            cached_tokens=counts.cached,
            generated_tokens=counts.generated,
            kv_bytes_used=self._turns.kept_bytes + sum(b.held_bytes for b in self._batches),
            kv_bytes_capacity=self._capacity,
            peak_memory_bytes=_peak_bytes(self._device),
        )

    def close(self) -> None:
        """Let running answers finish, refuse new ones, free the device. Idempotent."""
        with self._lock:
            self._closed = True
        self._counts.wait_idle()
        self._leave()
        atexit.unregister(self._leave)
        if self._device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    def _leave(self) -> None:
        """Stop after the present steps: at exit, a thread still in PyTorch would crash."""
        self._closed = True
        for batch in self._batches:
            batch.leave()
        self._turns.leave()

    def _refusal(self, prompt: Prompt, sampling: Sampling) -> EngineError | None:
        """Why a request cannot be served, or None."""
        context, vocabulary, length = (
            self.spec.context_length,
            self.spec.vocabulary_size,
            len(prompt.tokens),
        )
        if unknown := sorted(set(sampling.extra) - EXTRA):
            return Unsupported(
                f"engine transformers has no option {unknown[0]!r}; it has: {', '.join(EXTRA)}"
            )
        if not length:
            return EngineError("the prompt is empty; give at least one token")
        if not all(0 <= token < vocabulary for token in prompt.tokens):
            return EngineError(f"a token of the prompt is not in 0..{vocabulary - 1}")
        if length > context or (length == context and sampling.max_tokens != 0):
            return ContextOverflow(
                f"the prompt has {length} tokens and the context {context}, which leaves no room "
                "for an answer; shorten the prompt or raise --context"
            )
        return None


def _bytes_per_token(model: Any) -> int:
    """Keys and values of one position in all layers."""
    config = model.config
    slots = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return int(slots * model.dtype.itemsize)


def _peak_bytes(device: Any) -> int:
    if device.type != "cuda":
        return 0
    import torch

    return torch.cuda.max_memory_allocated(device)
