"""The contracts as test suites, for our engines and tools and for a stranger's.

Subclass a suite in a pytest module that has the fixture which opens your part:

```
@pytest.fixture(scope="module")
def engine():
    with closing(open_engine("mine", "nano")) as engine:
        yield engine

class TestMyEngine(EngineContract):
    pass
```

A suite tests what the part declares, and that the rest is refused.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openai_harmony import Author, Message, Role, TextContent

from gptoss_harmony.engine import Engine, Generation, Sampling, TokenOutput
from gptoss_harmony.errors import ContextOverflow, EngineError, HarmonyError, Unsupported
from gptoss_harmony.tool import Tool


def require(condition: bool, reason: str) -> None:
    """Skip the running test unless a real part is there.

    With `GPTOSS_REQUIRE_REAL=1` in the environment the part must be there, and the test fails.
    """
    import pytest

    if condition:
        return
    if os.environ.get("GPTOSS_REQUIRE_REAL") == "1":
        pytest.fail(f"GPTOSS_REQUIRE_REAL=1, but {reason}")
    pytest.skip(reason)


class AllowOnly:
    """A constraint that allows the same few tokens at every position; it records what it saw."""

    source = None
    done = False

    def __init__(self, tokens: set[int]) -> None:
        self.tokens = tokens
        self.accepted: list[int] = []

    def fill(self, row: NDArray[np.int32]) -> bool:
        """Allow exactly `tokens`."""
        row[:] = 0
        bits = row.view(np.uint32)
        for token in self.tokens:
            bits[token // 32] |= np.uint32(1 << (token % 32))
        return True

    def accept(self, token: int) -> None:
        """Remember the token."""
        self.accepted.append(token)

    def rollback(self, count: int) -> None:
        """Forget the last tokens."""
        del self.accepted[len(self.accepted) - count :]


def tokens_of(outputs: list[TokenOutput]) -> list[int]:
    """The ids of an answer."""
    return [output.token for output in outputs if output.token is not None]


class EngineContract:
    """What every engine owes; see `gptoss_harmony.engine`."""

    prompt: tuple[int, ...] = (200_006, 1_428, 200_008, 13_225, 200_007, 200_006, 173_781)

    def greedy(self, max_tokens: int, **changes: Any) -> Sampling:
        """A request whose answer depends on nothing but the prompt."""
        return Sampling(temperature=0.0, max_tokens=max_tokens, stop_tokens=(), **changes)

    def run(self, engine: Engine, sampling: Sampling, **keywords: Any) -> list[TokenOutput]:
        """Generate to the end."""
        return list(engine.generate(self.prompt, sampling, **keywords))

    def test_spec_is_frozen_and_plausible(self, engine: Engine) -> None:
        """The spec names the engine and cannot be changed."""
        spec = engine.spec
        assert spec.name
        assert spec.context_length > 0
        assert spec.vocabulary_size > 0
        try:
            spec.name = "other"  # type: ignore[misc]
        except AttributeError:
            return
        raise AssertionError("engine.spec can be changed")

    def test_a_generation_is_an_iterator_that_ends_with_a_reason(self, engine: Engine) -> None:
        """Only the last output has a reason, and StopIteration repeats after it."""
        generation = engine.generate(self.prompt, self.greedy(4))
        assert iter(generation) is generation
        outputs = list(generation)
        assert [o.finish_reason is None for o in outputs[:-1]] == [True] * (len(outputs) - 1)
        assert outputs[-1].finish_reason in ("stop", "length")
        assert next(generation, None) is None
        assert next(generation, None) is None

    def test_max_tokens_bounds_the_answer(self, engine: Engine) -> None:
        """No more tokens than asked for, all inside the vocabulary."""
        outputs = self.run(engine, self.greedy(3))
        assert len(tokens_of(outputs)) <= 3
        assert all(0 <= token < engine.spec.vocabulary_size for token in tokens_of(outputs))

    def test_zero_tokens_generate_none(self, engine: Engine) -> None:
        """max_tokens 0 reads the prompt and ends with `length`."""
        outputs = self.run(engine, self.greedy(0))
        assert [(o.token, o.finish_reason) for o in outputs] == [(None, "length")]

    def test_a_stop_token_is_the_last_one_out(self, engine: Engine) -> None:
        """Generation ends with the stop token itself and the reason `stop`."""
        first = tokens_of(self.run(engine, self.greedy(1)))[0]
        sampling = Sampling(temperature=0.0, max_tokens=8, stop_tokens=(first,))
        if engine.spec.name == "scripted":
            return  # a recording moves on to its next reply
        outputs = self.run(engine, sampling)
        assert tokens_of(outputs) == [first]
        assert outputs[-1].finish_reason == "stop"

    def test_cancel_wakes_a_waiting_reader(self, engine: Engine) -> None:
        """Cancelling from another thread ends the answer; doing it again does nothing."""
        generation = engine.generate(
            self.prompt, self.greedy(max(1, engine.spec.context_length // 2))
        )
        first = next(generation)
        timer = threading.Timer(0.05, generation.cancel)
        timer.start()
        rest = list(generation)
        timer.join()
        generation.cancel()
        last = rest[-1] if rest else first
        assert last.finish_reason in ("cancelled", "stop", "length")
        assert next(generation, None) is None
        assert self.run(engine, self.greedy(1)), "the engine no longer serves after a cancel"

    def test_cancel_before_the_first_token(self, engine: Engine) -> None:
        """An answer cancelled at once ends soon, as cancelled unless it was quicker."""
        generation = engine.generate(self.prompt, self.greedy(64))
        generation.cancel()
        assert list(generation)[-1].finish_reason in ("cancelled", "stop", "length")

    def test_a_prompt_that_overflows_fails_in_next(self, engine: Engine) -> None:
        """`generate` returns; `next` raises; the engine goes on."""
        generation = engine.generate([1] * (engine.spec.context_length + 1), self.greedy(1))
        self.assert_raises(ContextOverflow, generation)
        assert self.run(engine, self.greedy(1))

    def test_an_empty_prompt_and_unknown_ids_are_refused(self, engine: Engine) -> None:
        """0 tokens, negative ids and ids past the vocabulary are errors of that request."""
        for prompt in ([], [-1], [engine.spec.vocabulary_size]):
            self.assert_raises(EngineError, engine.generate(prompt, self.greedy(1)))

    def test_unknown_extra_is_refused(self, engine: Engine) -> None:
        """A research option that the engine does not know is not ignored."""
        sampling = self.greedy(1, extra={"no_such_option": 1})
        self.assert_raises(Unsupported, engine.generate(self.prompt, sampling))

    def test_many_threads_get_what_one_gets(self, engine: Engine) -> None:
        """Concurrent greedy requests answer as a lone one does."""
        if engine.spec.name == "scripted":
            return  # a recording's answers depend on their order
        alone = tokens_of(self.run(engine, self.greedy(6)))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: self.run(engine, self.greedy(6)), range(8)))
        assert [tokens_of(answer) for answer in answers] == [alone] * 8

    def test_seed(self, engine: Engine) -> None:
        """The same seed repeats an answer; without support a seed is refused."""
        sampling = Sampling(temperature=1.0, max_tokens=8, seed=7, stop_tokens=())
        if "seed" not in engine.spec.supports:
            self.assert_raises(Unsupported, engine.generate(self.prompt, sampling))
        elif engine.spec.name != "scripted":
            first, second = self.run(engine, sampling), self.run(engine, sampling)
            assert tokens_of(first) == tokens_of(second)

    def test_logprobs(self, engine: Engine) -> None:
        """Chosen and alternative tokens come with natural-log probabilities, best first."""
        sampling = self.greedy(3, logprobs=4)
        if "logprobs" not in engine.spec.supports:
            self.assert_raises(Unsupported, engine.generate(self.prompt, sampling))
            return
        for output in self.run(engine, sampling):
            assert output.logprob is not None
            assert output.logprob <= 0.0
            scores = [score for _, score in output.top_logprobs]
            assert len(scores) == 4
            assert scores == sorted(scores, reverse=True)
            assert abs(scores[0] - output.logprob) < 1e-4, "greedy did not take the most likely"

    def test_prompt_logprobs(self, engine: Engine) -> None:
        """The prompt is scored token by token, except its first."""
        sampling = self.greedy(0, prompt_logprobs=2)
        generation = engine.generate(self.prompt, sampling)
        if "prompt_logprobs" not in engine.spec.supports:
            self.assert_raises(Unsupported, generation)
            return
        list(generation)
        scores = generation.prompt_logprobs
        assert scores is not None
        assert len(scores) == len(self.prompt)
        assert scores[0] is None
        for token, score in zip(self.prompt[1:], scores[1:], strict=True):
            assert score is not None
            assert score.token == token
            assert score.logprob <= 0.0
            assert len(score.top) == 2

    def test_constraint(self, engine: Engine) -> None:
        """Only allowed tokens are sampled, and each is reported to the constraint."""
        constraint = AllowOnly({11, 200_002})
        sampling = Sampling(temperature=1.0, max_tokens=6, stop_tokens=())
        if "constraint" not in engine.spec.supports:
            refused = engine.generate(self.prompt, sampling, constraint=constraint)
            self.assert_raises(Unsupported, refused)
            return
        tokens = tokens_of(self.run(engine, sampling, constraint=constraint))
        assert set(tokens) <= constraint.tokens
        assert constraint.accepted == tokens

    def test_cached_tokens_and_stats(self, engine: Engine) -> None:
        """Reuse never exceeds the prompt; nothing runs once answers ended."""
        generation = engine.generate(self.prompt, self.greedy(2))
        assert 0 <= generation.cached_tokens <= len(self.prompt)
        list(generation)
        stats = engine.stats()
        assert stats.generated_tokens >= 1
        assert stats.prompt_tokens >= 1

    def assert_raises(self, kind: type[EngineError], generation: Generation) -> None:
        """The first `next()` raises `kind` with a message, and the generation is over."""
        try:
            output = next(generation)
        except HarmonyError as error:
            failure = error
        else:
            raise AssertionError(f"expected {kind.__name__}, got {output!r}")
        assert isinstance(failure, kind), f"expected {kind.__name__}, got {failure!r}"
        assert str(failure), "the error says nothing"
        assert next(generation, None) is None


class ToolContract:
    """What every tool owes; see `gptoss_harmony.tool`."""

    good_call: Message  # a call that the tool can serve, set by the subclass

    def test_it_is_a_tool(self, tool: Tool) -> None:
        """Name, description and instruction are there and agree."""
        assert isinstance(tool, Tool)
        assert tool.tool_config.name in (tool.name, "functions")
        assert isinstance(tool.instruction(), str)

    def test_await_and_async_for_agree_in_form(self, tool: Tool) -> None:
        """Both ways of reading give messages to the assistant, on the channel of the call."""

        async def collect() -> tuple[list[Message], list[Message]]:
            listed = await tool.process(self.good_call)
            return listed, [message async for message in tool.process(self.good_call)]

        for messages in asyncio.run(collect()):
            assert messages
            for message in messages:
                self.assert_reply(message)

    def test_bad_calls_are_answered_not_raised(self, tool: Tool) -> None:
        """Arguments that are no JSON, of the wrong type or unknown come back as messages."""
        for text in ("", "{", "[]", "null", '{"no_such_argument": 1}', "\x00", '{"id": {}}'):
            call = self.call_with(text)
            for message in asyncio.run(self._process(tool, call)):
                self.assert_reply(message)

    def test_an_unknown_function_is_answered_not_raised(self, tool: Tool) -> None:
        """A function that the namespace lacks comes back as a message."""
        call = self.call_with("{}").with_recipient(f"{tool.name}.no_such_function")
        messages = asyncio.run(self._process(tool, call))
        assert messages
        for message in messages:
            assert message.author.role == Role.TOOL

    def call_with(self, text: str) -> Message:
        """The good call with other arguments."""
        call = Message(
            author=Author(role=Role.ASSISTANT), content=[TextContent(text=text)], channel="analysis"
        )
        call.channel = self.good_call.channel
        call.recipient = self.good_call.recipient
        return call

    def assert_reply(self, message: Message) -> None:
        """A reply is the tool's message to the assistant on the channel of the call."""
        assert message.author.role == Role.TOOL
        assert message.author.name
        assert message.recipient == "assistant"
        assert message.channel == self.good_call.channel

    async def _process(self, tool: Tool, call: Message) -> list[Message]:
        return await tool.process(call)
