"""The answer in flight: order, endings, cancellation and errors across threads."""

import threading

import pytest

from gptoss_harmony.engine import TokenOutput
from gptoss_harmony.errors import ContextOverflow, EngineError
from gptoss_harmony.generation import TokenStream


def test_outputs_come_in_order_and_end() -> None:
    stream = TokenStream()
    assert iter(stream) is stream
    stream.begin(cached_tokens=5)
    stream.put(TokenOutput(1))
    stream.put(TokenOutput(2, finish_reason="stop"))
    stream.put(TokenOutput(3))  # too late: ignored
    assert stream.cached_tokens == 5
    assert [output.token for output in stream] == [1, 2]
    assert next(stream, None) is None


def test_a_waiting_reader_wakes_when_the_engine_answers_a_cancel() -> None:
    asked = threading.Event()
    stream = TokenStream(on_cancel=asked.set)
    got: list[TokenOutput] = []
    reader = threading.Thread(target=lambda: got.extend(stream))
    reader.start()
    stream.cancel()
    stream.cancel()
    assert asked.is_set()
    assert stream.cancelled
    stream.finish_cancelled()
    reader.join(5)
    assert not reader.is_alive()
    assert got == [TokenOutput(None, finish_reason="cancelled")]


def test_on_cancel_is_called_once_and_not_after_the_end() -> None:
    calls: list[int] = []
    stream = TokenStream(on_cancel=lambda: calls.append(1))
    stream.put(TokenOutput(1, finish_reason="length"))
    stream.cancel()
    assert calls == []


def test_errors_come_after_the_outputs_before_them() -> None:
    stream = TokenStream()
    stream.put(TokenOutput(1))
    stream.fail(ContextOverflow("too long"))
    assert next(stream).token == 1
    with pytest.raises(ContextOverflow, match="too long"):
        next(stream)
    assert next(stream, None) is None


def test_a_bug_in_an_engine_arrives_as_an_engine_error_with_its_cause() -> None:
    stream = TokenStream()
    bug = ZeroDivisionError("oops")
    stream.fail(bug)
    with pytest.raises(EngineError, match="oops") as caught:
        next(stream)
    assert caught.value.__cause__ is bug


def test_cached_tokens_does_not_hang_when_the_engine_fails_first() -> None:
    stream = TokenStream()
    stream.fail(EngineError("no"))
    assert stream.cached_tokens == 0
    assert stream.prompt_logprobs is None


def test_cached_tokens_waits_for_the_engine() -> None:
    stream = TokenStream()
    timer = threading.Timer(0.05, lambda: stream.begin(cached_tokens=7))
    timer.start()
    assert stream.cached_tokens == 7
    timer.join()
