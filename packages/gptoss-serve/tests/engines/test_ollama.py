"""The ollama engine against a server that speaks Ollama's documented wire.

No Ollama was run: the server here follows its API reference (newline-delimited JSON, `raw`, the
options, `done_reason`, an error as a line of the stream) and its habit of never sending the token
that ends an answer.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_harmony import (
    Conversation,
    Role,
    Sampling,
    load_encoding,
    open_engine,
    system_message,
    user_message,
)
from gptoss_harmony.errors import ContextOverflow, EngineError, HarmonyError, UsageError
from gptoss_harmony.testing import EngineContract, tokens_of
from gptoss_harmony.tokens import CALL, CHANNEL, RETURN
from gptoss_serve import Client, Session
from gptoss_serve.engines.ollama import OllamaEngine, OllamaOptions, server_url
from gptoss_serve.engines.ollama_text import prompt_text

ENCODING = load_encoding()
FINAL = "<|channel|>final<|message|>"
THINK = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"


def pieces_of(text: str) -> list[dict[str, Any]]:
    """A line of the stream for each token, or for several that make up a character."""
    pieces, waiting = [], []
    for token in ENCODING.encode(text, allowed_special="all"):
        waiting.append(token)
        if "\ufffd" not in (piece := ENCODING.decode(waiting)):
            pieces.append({"response": piece})
            waiting = []
    return pieces


class Handler(BaseHTTPRequestHandler):
    """Answers as Ollama does, with what `FakeOllama` holds ready."""

    server: FakeOllama

    def do_GET(self) -> None:
        self.answer(200, {"models": [{"name": "gpt-oss:20b"}, {"name": "llama:7b"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/api/show":
            if body["model"] == "gpt-oss:20b":
                self.answer(200, {"model_info": self.server.show})
            else:
                self.answer(404, {"error": f"model '{body['model']}' not found"})
            return
        self.server.asked.append(body)
        if self.server.refusal:
            self.answer(self.server.refusal[0], {"error": self.server.refusal[1]})
            return
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.end_headers()
        try:
            self.stream(body["options"]["num_predict"])
        except OSError:
            self.server.left.set()

    def stream(self, limit: int) -> None:
        fake = self.server
        for piece in fake.pieces[:limit]:
            fake.left.wait(fake.pause)
            self.line({"model": "gpt-oss:20b", "done": False, **piece})
            fake.sent += 1
        reason = "length" if len(fake.pieces) > limit else "stop"
        counts = {"prompt_eval_count": 3, "eval_count": len(fake.pieces)}
        self.line({"response": "", "done": True, "done_reason": reason, **counts})

    def line(self, document: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(document).encode() + b"\n")
        self.wfile.flush()

    def answer(self, status: int, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class FakeOllama(ThreadingHTTPServer):
    """Ollama's endpoints, and what they were asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pieces = pieces_of(FINAL + "word " * 60)
        self.show: dict[str, Any] = {
            "general.architecture": "gptoss",
            "gptoss.context_length": 131_072,
        }
        self.refusal: tuple[int, str] | None = None
        self.pause = 0.0
        self.asked: list[dict[str, Any]] = []
        self.sent = 0
        self.left = threading.Event()  # a client went away in the middle
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.left.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    server = FakeOllama()
    yield server
    server.close()


@pytest.fixture
def engine(fake: FakeOllama) -> Iterator[OllamaEngine]:
    engine = OllamaEngine.open("gpt-oss-20b", OllamaOptions(engine_url=fake.url, context=2000))
    yield engine
    engine.close()


class TestContract(EngineContract):
    @pytest.fixture
    def engine(self, engine: OllamaEngine) -> OllamaEngine:
        return engine


def prompt(text: str = "Hello") -> list[int]:
    conversation = Conversation.from_messages([system_message(), user_message(text)])
    return ENCODING.render_conversation_for_completion(conversation, Role.ASSISTANT)


def answer(engine: OllamaEngine, tokens: list[int] | None = None, **settings: Any) -> list[int]:
    return tokens_of(list(engine.generate(tokens or prompt(), Sampling(**settings))))


def test_what_is_sent(engine: OllamaEngine, fake: FakeOllama) -> None:
    answer(engine, temperature=0.5, top_k=7, seed=2**40 + 5, repetition_penalty=1.5, max_tokens=9)
    (body,) = fake.asked
    assert body["model"] == "gpt-oss:20b"
    assert body["raw"] is body["stream"] is True
    assert body["truncate"] is body["shift"] is False
    assert ENCODING.encode(body["prompt"], allowed_special="all") == prompt()
    assert body["options"] == {
        "num_ctx": 2000,
        "num_predict": 9,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 7,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repeat_penalty": 1.5,
        "repeat_last_n": -1,
        "seed": 5,
        "stop": [],
    }


def test_the_end_that_ollama_keeps_is_put_back(engine: OllamaEngine, fake: FakeOllama) -> None:
    text = THINK + FINAL + "Hello there 👋🏽"
    fake.pieces = pieces_of(text)
    tokens = answer(engine)
    assert tokens == ENCODING.encode(text + "<|return|>", allowed_special="all")
    fake.pieces = pieces_of(THINK + '<|channel|>commentary to=functions.f<|message|>{"a": 1}')
    assert answer(engine)[-1] == CALL
    fake.pieces = pieces_of(FINAL + "Hi<|return|>")  # a server that does send it
    assert answer(engine).count(RETURN) == 1


def test_a_conversation_with_a_call(engine: OllamaEngine, fake: FakeOllama, call: str) -> None:
    fake.pieces = pieces_of(call.removesuffix("<|call|>"))
    tools = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]

    async def run() -> Any:
        async with Client.over_session(Session(engine)) as client:
            return await client.complete("Weather?", tools=tools)

    reply = asyncio.run(run())
    assert [item["type"] for item in reply.output] == ["reasoning", "message", "function_call"]


def test_a_text_that_was_taken_apart_is_put_together(
    engine: OllamaEngine, fake: FakeOllama
) -> None:
    fake.pieces = [{"thinking": "Hm", "response": ""}, {"thinking": "."}, {"response": "<|end|>"}]
    whole = THINK + FINAL
    told = answer(engine)
    assert ENCODING.decode(told) == whole + "<|end|><|return|>"
    assert tuple(told[-4:-1]) == tuple(ENCODING.encode_text("<|end|>")[-3:])
    fake.pieces = [{"response": "Hello"}, {"response": " you"}]
    assert ENCODING.decode(answer(engine)) == FINAL + "Hello you<|return|>"
    fake.pieces = [{"response": "Hello"}]  # a prompt that ends in a text needs no header
    inside = [*prompt(), *ENCODING.encode(FINAL, allowed_special="all")]
    assert ENCODING.decode(answer(engine, inside)) == "Hello<|return|>"


def test_dropped_markers_are_said(engine: OllamaEngine, fake: FakeOllama) -> None:
    fake.pieces = [{"response": "analysis"}, {"response": "User"}, {"response": " greets"}]
    with pytest.raises(EngineError, match="markers"):
        answer(engine)


@given(st.text(st.sampled_from("<|>endreturscall_ 1\u200bé"), max_size=30), st.booleans())
def test_no_text_of_a_user_becomes_a_marker(text: str, named: bool) -> None:
    text = f"{text}<|end|>{text}<|reserved_200013|>" if named else text
    tokens = prompt(text)
    sent = ENCODING.encode(prompt_text(ENCODING, tokens), allowed_special="all")
    markers = [token for token in tokens if token >= CHANNEL - 100]
    assert [token for token in sent if token >= CHANNEL - 100] == markers
    if not named and "<|" not in text:
        assert sent == tokens


def test_a_stop_token_hangs_up(engine: OllamaEngine, fake: FakeOllama) -> None:
    fake.pieces = pieces_of(FINAL + "word " * 2000)
    fake.pause = 0.01
    outputs = list(engine.generate(prompt(), Sampling(stop_tokens=(CHANNEL,))))
    assert tokens_of(outputs) == [CHANNEL]
    assert outputs[-1].finish_reason == "stop"
    assert fake.left.wait(60)
    assert fake.sent < 1900


def test_a_cancel_hangs_up(engine: OllamaEngine, fake: FakeOllama) -> None:
    fake.pieces = pieces_of(FINAL + "word " * 2000)
    fake.pause = 0.01
    generation = engine.generate(prompt(), Sampling())
    next(generation)
    generation.cancel()
    assert list(generation)[-1].finish_reason == "cancelled"
    assert fake.left.wait(60)
    assert fake.sent < 1900


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (404, "model 'gpt-oss:20b' not found", EngineError),
        (400, "the input length exceeds the context length", ContextOverflow),
        (503, "server busy, please try again", EngineError),
        (500, "model requires more system memory", EngineError),
    ],
)
def test_refusals(
    engine: OllamaEngine, fake: FakeOllama, status: int, said: str, kind: type[EngineError]
) -> None:
    fake.refusal = (status, said)
    with pytest.raises(kind, match=said):
        answer(engine)
    fake.refusal = None
    assert answer(engine)


def test_an_error_in_the_stream(engine: OllamaEngine, fake: FakeOllama) -> None:
    fake.pieces = [*pieces_of(FINAL + "Hi"), {"error": "an error was encountered: CUDA"}]
    generation = engine.generate(prompt(), Sampling())
    with pytest.raises(EngineError, match="CUDA"):
        list(generation)
    fake.pieces = [{"done": True, "done_reason": "load", "response": ""}]
    assert answer(engine) == [RETURN]


def test_what_cannot_be_opened_is_said(fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(model: str, **options: Any) -> str:
        with pytest.raises(HarmonyError) as error:
            open_engine("ollama", model, **{"engine_url": fake.url, **options})
        return str(error.value)

    assert "ollama serve" in opened("gpt-oss:20b", engine_url="http://127.0.0.1:9")
    assert "ollama pull gpt-oss:120b" in opened("gpt-oss-120b")
    assert "llama:7b" in opened("nano")
    assert "is more than" in opened("gpt-oss:20b", context=10**6)
    assert "at least 1" in opened("gpt-oss:20b", context=0)
    fake.show = {"general.architecture": "llama"}
    assert "llama model" in opened("gpt-oss:20b")
    fake.show = {}
    monkeypatch.setenv("OLLAMA_HOST", fake.url)
    engine = open_engine("ollama", "openai/gpt-oss-20b", keep_alive="-1")
    assert answer(engine)
    assert fake.asked[-1]["keep_alive"] == -1
    assert (engine.spec.context_length, engine.spec.model_id) == (32_768, "gpt-oss:20b")
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        next(engine.generate([1], Sampling()))


@pytest.mark.parametrize(
    ("given_host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("box:8080/", "http://box:8080"),
        ("https://box", "https://box:443"),
        ("http://[::1]:1/x", "http://[::1]:1/x"),
    ],
)
def test_the_address(given_host: str, url: str) -> None:
    assert server_url(given_host) == url


@pytest.mark.parametrize("bad", ["ftp://box", "box:port"])
def test_a_bad_address(bad: str) -> None:
    with pytest.raises(UsageError, match="address"):
        server_url(bad)


def test_it_serves(engine: OllamaEngine, fake: FakeOllama, serve: Callable[..., Any]) -> None:
    import httpx

    fake.pieces = pieces_of(THINK + FINAL + "Hello.")
    url = serve(engine=engine).url
    body = {"model": "gpt-oss:20b", "messages": [{"role": "user", "content": "Hi"}]}
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
    message = reply["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("Hello.", "Hm.")
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    refused = httpx.post(
        f"{url}/v1/chat/completions", json=body | {"response_format": schema}, timeout=60
    )
    assert refused.status_code == 400
