"""The engine that replays: for tests, demos and load generators that need no model.

A script is a JSON file:

```
{"replies": ["<|channel|>final<|message|>Hello.<|return|>",
             {"when": "weather", "text": "<|channel|>final<|message|>Sunny.<|return|>"}],
 "cycle": true}
```

Replies are harmony text with its special tokens spelled out, or lists of token ids. A reply with
`when` answers every prompt whose last message contains that text; the others answer in turn.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.engine import (
    Constraint,
    EngineSpec,
    EngineStats,
    FinishReason,
    Prompt,
    Sampling,
    TokenLogprob,
    TokenOutput,
)
from gptoss_harmony.errors import CheckpointError, ContextOverflow, EngineError, Unsupported
from gptoss_harmony.tokens import ASSISTANT_ACTION_ENDS, START, VOCABULARY_SIZE

# What a script is at heart: the prompt's tokens in, the answer's tokens out.
Script = Callable[[Prompt], Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedOptions:
    """How the recording is played."""

    context: int = field(default=131_072, metadata={"help": "positions for prompt and answer"})
    tokens_per_second: float = field(
        default=0.0, metadata={"help": "pace of each answer; 0 plays as fast as it is read"}
    )


class Recording:
    """A script from a list of replies; see the module for their form.

    Args:
        replies: strings, lists of token ids, or mappings with `text` or `tokens` and `when`.
        cycle: start again after the last reply; otherwise running out is an `EngineError`.
    """

    def __init__(self, replies: Sequence[Any], *, cycle: bool = True) -> None:
        self._encoding = load_encoding()
        parsed = [self._parse(reply) for reply in replies]
        self._triggered = [(when, tokens) for when, tokens in parsed if when]
        self._in_turn = [tokens for when, tokens in parsed if not when]
        self._cycle = cycle
        self._next = 0
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a script file.

        Raises:
            CheckpointError: it is missing, or is not a script.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(document["replies"], cycle=bool(document.get("cycle", True)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = error.strerror if isinstance(error, OSError) else error
            raise CheckpointError(
                f"{path} is not a script for the scripted engine ({problem}); "
                'it is a JSON file such as {"replies": ["<|channel|>final<|message|>Hi<|return|>"]}'
            ) from error

    def __call__(self, prompt: Prompt) -> Sequence[int]:
        """Choose the reply to `prompt`."""
        if self._triggered:
            last_message = self._last_message(prompt)
            for when, tokens in self._triggered:
                if when in last_message:
                    return tokens
        with self._lock:
            if not self._in_turn or (self._next >= len(self._in_turn) and not self._cycle):
                raise EngineError("the script has no reply left; add one, or set cycle to true")
            reply = self._in_turn[self._next % len(self._in_turn)]
            self._next += 1
        return reply

    def _parse(self, reply: Any) -> tuple[str, list[int]]:
        if isinstance(reply, dict):
            return str(reply.get("when", "")), self._tokens(reply.get("text", reply.get("tokens")))
        return "", self._tokens(reply)

    def _tokens(self, reply: Any) -> list[int]:
        if isinstance(reply, str):
            return list(self._encoding.encode(reply, allowed_special="all"))
        return [int(token) for token in reply]

    def _last_message(self, prompt: Prompt) -> str:
        """Decode the last message before the header that the answer continues."""
        starts = [i for i, token in enumerate(prompt.tokens) if token == START]
        first = starts[-2] if len(starts) > 1 else 0
        return self._encoding.decode(prompt.tokens[first:])


class ScriptedEngine:
    """Replays a script as an engine. `open` takes the path of a script file."""

    Options = ScriptedOptions

    def __init__(self, script: Script, options: ScriptedOptions | None = None) -> None:
        self._script = script
        self._options = options or ScriptedOptions()
        self._closed = False
        self._lock = threading.Lock()
        self._running = 0
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self.spec = EngineSpec(
            name="scripted",
            model_id="scripted",
            context_length=self._options.context,
            vocabulary_size=VOCABULARY_SIZE,
            device="none",
            supports=frozenset({"batching", "exact_tokens", "seed"}),
        )

    @classmethod
    def open(cls, checkpoint: str, options: ScriptedOptions) -> Self:
        """Load the script file `checkpoint`."""
        return cls(Recording.load(Path(checkpoint)), options)

    def generate(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
    ) -> _Replay:
        """Start a reply; its tokens are chosen at the first `next()`."""
        return _Replay(self, Prompt.of(prompt), sampling, constraint)

    def stats(self) -> EngineStats:
        """Counters; a recording uses no device memory."""
        with self._lock:
            return EngineStats(
                running=self._running,
                prompt_tokens=self._prompt_tokens,
                generated_tokens=self._generated_tokens,
            )

    def close(self) -> None:
        """Refuse new requests and wait for the running ones."""
        self._closed = True

    def _begin(
        self, prompt: Prompt, sampling: Sampling, constraint: Constraint | None
    ) -> tuple[list[int], FinishReason]:
        """Check a request and return the tokens that answer it, and why they end."""
        if self._closed:
            raise EngineError("the engine is closed; open a new one")
        self._refuse(sampling, constraint)
        room = self._options.context - len(prompt.tokens)
        if not prompt.tokens or not all(0 <= t < VOCABULARY_SIZE for t in prompt.tokens):
            raise EngineError(f"a prompt is one or more token ids below {VOCABULARY_SIZE}")
        if room <= 0:
            raise ContextOverflow(
                f"the prompt has {len(prompt.tokens)} tokens but the context has "
                f"{self._options.context}; shorten it or raise --context"
            )
        limit = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        if limit == 0:
            return [], "length"
        tokens = list(self._script(prompt))
        asked = sampling.stop_tokens
        stops = ASSISTANT_ACTION_ENDS if asked is None else frozenset(asked)
        end = next((i + 1 for i, token in enumerate(tokens) if token in stops), None)
        if end is not None and end <= limit:
            return tokens[:end], "stop"
        return tokens[:limit], "length"

    def _refuse(self, sampling: Sampling, constraint: Constraint | None) -> None:
        asked = {
            "constraint": constraint is not None,
            "logprobs": sampling.logprobs is not None,
            "prompt_logprobs": sampling.prompt_logprobs is not None,
            **dict.fromkeys((f"extra {key!r}" for key in sampling.extra), True),
        }
        for feature, wanted in asked.items():
            if wanted:
                raise Unsupported(f"the scripted engine does not support {feature}")

    def _count(self, *, running: int = 0, prompt: int = 0, generated: int = 0) -> None:
        with self._lock:
            self._running += running
            self._prompt_tokens += prompt
            self._generated_tokens += generated


class _Replay:
    """One reply being played. It owns no thread: the consumer's `next()` does the work."""

    def __init__(
        self,
        engine: ScriptedEngine,
        prompt: Prompt,
        sampling: Sampling,
        constraint: Constraint | None,
    ) -> None:
        self._engine = engine
        self._request = (prompt, sampling, constraint)
        self._tokens: list[int] | None = None
        self._reason: FinishReason = "stop"
        self._position = 0
        self._ended = False
        self._cancelled = threading.Event()
        self._next_time = 0.0
        self._turn = threading.Lock()  # two threads in next() take turns

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenOutput:
        with self._turn:
            if self._ended:
                raise StopIteration
            if self._tokens is None:
                self._start()
            assert self._tokens is not None
            self._wait()
            return self._output(self._tokens)

    def _start(self) -> None:
        try:
            self._tokens, self._reason = self._engine._begin(*self._request)
        except BaseException:
            self._ended = True
            raise
        self._engine._count(running=1, prompt=len(self._request[0].tokens))
        self._next_time = time.monotonic()

    def _wait(self) -> None:
        """Keep the pace, counted from the start so that delays do not add up."""
        pace = self._engine._options.tokens_per_second
        if pace > 0:
            self._next_time += 1.0 / pace
            self._cancelled.wait(max(0.0, self._next_time - time.monotonic()))

    def _output(self, tokens: list[int]) -> TokenOutput:
        if self._cancelled.is_set():
            return self._end(TokenOutput(None, finish_reason="cancelled"))
        if self._position >= len(tokens):
            return self._end(TokenOutput(None, finish_reason=self._reason))
        token = tokens[self._position]
        self._position += 1
        self._engine._count(generated=1)
        if self._position == len(tokens):
            return self._end(TokenOutput(token, finish_reason=self._reason))
        return TokenOutput(token)

    def _end(self, output: TokenOutput) -> TokenOutput:
        self._ended = True
        self._engine._count(running=-1)
        return output

    def cancel(self) -> None:
        """End the reply at the next `next()`, at once if one is waiting."""
        self._cancelled.set()

    @property
    def cached_tokens(self) -> int:
        """A recording reuses nothing."""
        return 0

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        """A recording scores nothing."""
        return None
