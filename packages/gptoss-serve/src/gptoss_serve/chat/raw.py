"""`--raw`: every token as the model reads and writes it, markers spelled out."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any, Self

from gptoss_harmony import (
    Constraint,
    Encoding,
    Engine,
    EngineSpec,
    Generation,
    Prompt,
    Sampling,
    TokenOutput,
)


class TappedEngine:
    """Passes everything through and shows the tokens that pass, the known prefix once.

    Args:
        engine: does the work, and is closed by whoever opened it.
        encoding: turns tokens into text.
        show: gets text, in the thread that reads the tokens.
    """

    def __init__(self, engine: Engine, encoding: Encoding, show: Callable[[str], None]) -> None:
        self._engine = engine
        self._encoding = encoding
        self._show = show
        self._shown: list[int] = []

    @property
    def spec(self) -> EngineSpec:
        """Of the engine behind."""
        return self._engine.spec

    def generate(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
    ) -> Generation:
        """Show what is new in the prompt, then every token of the answer."""
        tokens = list(Prompt.of(prompt).tokens)
        pairs = enumerate(zip(self._shown, tokens, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), min(len(self._shown), len(tokens)))
        self._show(self._encoding.decode(tokens[same:]))
        self._shown = tokens
        return _Tapped(self._engine.generate(prompt, sampling, constraint=constraint), self._tap())

    def _tap(self) -> Callable[[int], None]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        def tap(token: int) -> None:
            self._shown.append(token)
            self._show(decoder.decode(self._encoding.decode_bytes([token])))

        return tap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class _Tapped:
    """A generation whose tokens are shown."""

    def __init__(self, generation: Generation, tap: Callable[[int], None]) -> None:
        self._generation = generation
        self._tap = tap

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenOutput:
        output = next(self._generation)
        if output.token is not None:
            self._tap(output.token)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generation, name)
