"""The replaying engine, held to the contract and to its script."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gptoss_harmony import Sampling, TokenOutput, open_engine
from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.errors import CheckpointError, EngineError
from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions
from gptoss_harmony.testing import EngineContract, tokens_of

HELLO = "<|channel|>final<|message|>Hello.<|return|>"


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with closing(ScriptedEngine(Recording([[11] * 2000]), ScriptedOptions(context=512))) as engine:
        yield engine


class TestContract(EngineContract):
    pass


def replies(engine: ScriptedEngine, prompt: str) -> str:
    encoding = load_encoding()
    tokens = encoding.encode(prompt, allowed_special="all")
    return encoding.decode(tokens_of(list(engine.generate(tokens, Sampling()))))


def write(folder: Path, document: object) -> str:
    path = folder / "script.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_replies_come_in_turn_and_start_again(tmp_path: Path) -> None:
    other = HELLO.replace("Hello", "Bye")
    with closing(open_engine("scripted", write(tmp_path, {"replies": [HELLO, other]}))) as engine:
        assert [replies(engine, "x") for _ in range(3)] == [HELLO, other, HELLO]


def test_running_out_is_an_error_of_that_request(tmp_path: Path) -> None:
    script = write(tmp_path, {"replies": [HELLO], "cycle": False})
    with closing(open_engine("scripted", script)) as engine:
        assert replies(engine, "x") == HELLO
        with pytest.raises(EngineError, match="no reply left"):
            replies(engine, "x")


def test_a_trigger_looks_at_the_last_message_only() -> None:
    sunny = HELLO.replace("Hello", "Sunny")
    engine = ScriptedEngine(Recording([HELLO, {"when": "weather", "text": sunny}]))
    asks = "<|start|>user<|message|>the weather?<|end|><|start|>assistant"
    later = (
        "<|start|>user<|message|>weather<|end|><|start|>user<|message|>hm<|end|><|start|>assistant"
    )
    assert replies(engine, asks) == sunny
    assert replies(engine, later) == HELLO


def test_the_reply_ends_at_its_stop_token_or_at_the_limit() -> None:
    engine = ScriptedEngine(Recording([HELLO + "junk"]))
    assert list(engine.generate([1], Sampling()))[-1].finish_reason == "stop"
    last = list(engine.generate([1], Sampling(max_tokens=2)))[-1]
    assert last.finish_reason == "length"


def test_pace_is_kept_and_a_cancel_ends_the_wait() -> None:
    engine = ScriptedEngine(Recording([[11] * 100]), ScriptedOptions(tokens_per_second=0.001))
    generation = engine.generate([1], Sampling())
    threading.Timer(0.05, generation.cancel).start()
    began = time.monotonic()
    assert next(generation) == TokenOutput(None, finish_reason="cancelled")
    assert time.monotonic() - began < 100  # the pace alone would have taken 1000 s


@pytest.mark.parametrize("document", [[], {}, {"replies": 3}, {"replies": [{"text": None}]}])
def test_what_is_no_script_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(CheckpointError, match="not a script"):
        open_engine("scripted", write(tmp_path, document))


def test_a_closed_engine_says_so() -> None:
    engine = ScriptedEngine(Recording([HELLO]))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        next(engine.generate([1], Sampling()))
