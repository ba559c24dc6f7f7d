"""The model of an upstream, where the rest of the server looks for an engine.

It says what the model is and counts its tokens. It continues no tokens: rounds are answered by
`upstream.round`, and what needs token ids is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from gptoss_harmony import EngineSpec, EngineStats, Prompt, Sampling
from gptoss_harmony.errors import Unsupported
from gptoss_harmony.tokens import VOCABULARY_SIZE
from gptoss_serve.events import Usage
from gptoss_serve.upstream.endpoint import Endpoint


class UpstreamModel:
    """What is known of a model behind an API.

    Args:
        endpoint: of the model.

    Attributes:
        spec: `constraint` means that schemas and tool choices are handed on to the upstream.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.spec = EngineSpec(
            name="upstream",
            model_id=endpoint.model,
            context_length=endpoint.context_length,
            vocabulary_size=VOCABULARY_SIZE,
            device=endpoint.shown,
            supports=frozenset({"batching", "constraint", "seed"}),
        )
        self._running = 0
        self._usage = Usage()

    def begin(self) -> None:
        """A round starts."""
        self._running += 1

    def end(self, usage: Usage) -> None:
        """A round is over."""
        self._running -= 1
        self._usage += usage

    def stats(self) -> EngineStats:
        """Rounds in progress, and the tokens that the upstream has reported."""
        return EngineStats(
            running=self._running,
            prompt_tokens=self._usage.input_tokens,
            cached_tokens=self._usage.cached_tokens,
            generated_tokens=self._usage.output_tokens,
        )

    def generate(
        self, prompt: Prompt | Sequence[int], sampling: Sampling, *, constraint: Any = None
    ) -> NoReturn:
        """Refuse.

        Raises:
            Unsupported: always.
        """
        raise Unsupported(
            "an upstream continues messages, not text or token ids; ask /v1/responses or "
            "/v1/chat/completions, or serve an engine"
        )

    def close(self) -> None:
        """Nothing to give back."""
