"""vLLM itself, on the CPU, over nano: one worker for all, asked directly and as a server by URL."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from gptoss_harmony import Sampling, load_encoding, open_engine, system_message, user_message
from gptoss_harmony.engine import Engine
from gptoss_harmony.errors import Unsupported, UsageError
from gptoss_harmony.grammar import AnswerFormat, Grammar, JsonSchema
from gptoss_harmony.testing import EngineContract, require, tokens_of
from gptoss_serve.engines.vllm import VllmEngine
from gptoss_serve.engines.vllm_server import WHOLE_GRAMMAR

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(1500),  # a vLLM that hangs while it starts
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "celsius": {"type": "integer"}},
    "required": ["city", "celsius"],
    "additionalProperties": False,
}


def wait_for_the_installation() -> str:
    """The interpreter, once what installs it in the background has written how that went."""
    python, status = (os.environ.get(f"GPTOSS_VLLM_{name}", "") for name in ("PYTHON", "STATUS"))
    require(bool(python), "no Python with vLLM: GPTOSS_VLLM_PYTHON names none")
    deadline = time.monotonic() + 900
    while status and not Path(status).is_file():
        assert time.monotonic() < deadline, f"the installation of vLLM never wrote {status}"
        time.sleep(0.2)
    if status:
        assert Path(status).read_text().strip() == "0", "vLLM could not be installed"
    return python


@contextlib.contextmanager
def gptoss(*arguments: str, log: Path, says: str) -> Iterator[str]:
    """A command of ours that runs until it is told to stop; what it says about its address."""
    code = "from gptoss_harmony.cli import main; raise SystemExit(main())"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", code, *arguments], stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 240
        while (found := re.search(says, log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="module")
def python_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our python as an MCP server; its address, or nothing where there is no jail."""
    if shutil.which("bwrap") is None:
        yield ""
        return
    arguments = ("tool", "serve", "python", "--jail", "bubblewrap", "--port", "0")
    log = tmp_path_factory.mktemp("python") / "log"
    with gptoss(*arguments, log=log, says=r"python at http://(\S+)/mcp") as address:
        yield address


@pytest.fixture(scope="module")
def worker(python_server: str) -> Iterator[VllmEngine]:
    """The worker; bf16, because vLLM reads MXFP4 on few CPUs (those with AMX for 8-bit floats)."""
    python = wait_for_the_installation()
    tools = f" tool_server={python_server}" if python_server else ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        engine = VllmEngine.open(
            "nano",
            VllmEngine.Options(
                engine_python=python,
                engine_args="enforce_eager dtype=bfloat16" + tools,
                experts="bf16",
                context=2048,
            ),
        )
    try:
        yield engine
    finally:
        engine.close()


class Relay(socketserver.ThreadingTCPServer):
    """A port in front of the worker's socket, which makes it a server by URL."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(("127.0.0.1", 0), _Connection)


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as behind:
            behind.connect(self.server.path)  # type: ignore[attr-defined]
            up = threading.Thread(target=_pump, args=(self.request, behind), daemon=True)
            up.start()
            _pump(behind, self.request)
            up.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy until either side ends, then end both."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for side in (source, target):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def url(worker: VllmEngine) -> Iterator[str]:
    """The worker as a server on a port."""
    assert worker._worker is not None
    relay = Relay(str(worker._worker._folder / "socket"))
    thread = threading.Thread(target=relay.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{relay.server_address[1]}/v1"
    relay.shutdown()
    thread.join()
    relay.server_close()


class TestWorker(EngineContract):
    @pytest.fixture
    def engine(self, worker: VllmEngine) -> VllmEngine:
        return worker


class TestServerByUrl(EngineContract):
    @pytest.fixture(scope="class")
    def engine(self, url: str) -> Iterator[Engine]:
        engine = open_engine("vllm", "nano", engine_url=url)
        yield engine
        engine.close()


def hello() -> tuple[int, ...]:
    messages = [system_message(date="2026-01-01"), user_message("Hello!")]
    return load_encoding().render_prompt(messages).tokens


def test_it_declares_everything(worker: VllmEngine, url: str) -> None:
    wanted = {"constraint", "logprobs", "prompt_logprobs", "seed", "batching", "exact_tokens"}
    assert worker.spec.supports == wanted
    assert WHOLE_GRAMMAR in worker._model.features
    assert worker.spec.context_length == 2048
    with pytest.raises(UsageError, match="serves nano"):
        open_engine("vllm", "gpt-oss-20b", engine_url=url)


def test_it_says_what_the_reference_says(worker: VllmEngine) -> None:
    """Both score its greedy answers alike, and choose alike where the choice is clear."""
    pytest.importorskip("gptoss_core")
    bound = 0.5  # of log probabilities in bf16 through other kernels; 0.2 was seen
    compared = 0
    with contextlib.closing(open_engine("torch", "nano")) as reference:
        for question in ("Hello!", "What is 17 + 25?", 'Extract the name: "Ada lives in Rome."'):
            messages = [system_message(date="2026-01-01"), user_message(question)]
            prompt = load_encoding().render_prompt(messages).tokens
            ours = list(
                reference.generate(prompt, Sampling(temperature=0, max_tokens=32, logprobs=2))
            )
            answer = tokens_of(ours)
            scored = worker.generate([*prompt, *answer], Sampling(max_tokens=0, prompt_logprobs=1))
            list(scored)
            assert scored.prompt_logprobs is not None
            for output, score in zip(ours, scored.prompt_logprobs[len(prompt) :], strict=True):
                assert score is not None
                assert output.logprob is not None
                assert abs(output.logprob - score.logprob) < bound
                (_, first), (_, second) = output.top_logprobs
                if first - second > 2 * bound:
                    assert score.top[0][0] == output.token
                    compared += 1
    assert compared > 30


@pytest.mark.parametrize("native", [True, False], ids=["by its grammar", "by lists of tokens"])
def test_constrained_answers_are_valid(worker: VllmEngine, native: bool) -> None:
    features = worker._model.features - (set() if native else {WHOLE_GRAMMAR})
    answers = []
    model = worker._model
    worker._model = dataclasses.replace(model, features=frozenset(features))
    try:
        grammar = Grammar(load_encoding(), AnswerFormat(channels={"final": JsonSchema(CITY)}))
        for seed, budget in ((1, 120), (2, 120), (3, 24)):
            sampling = Sampling(max_tokens=budget, seed=seed)
            made = grammar.constraint(budget=budget)
            outputs = list(worker.generate(hello(), sampling, constraint=made))
            assert outputs[-1].finish_reason == "stop"
            answers.append(load_encoding().decode(tokens_of(outputs)))
    finally:
        worker._model = model
    for answer in answers:
        final = re.search(r"<\|channel\|>final[^{]*<\|message\|>(.*)<\|return\|>$", answer, re.S)
        assert final, answer
        jsonschema.validate(json.loads(final[1]), CITY)


def test_prefixes_are_reused_among_those_of_one_salt(worker: VllmEngine) -> None:
    prompt = [*hello(), *range(1000, 1400)]
    one = Sampling(max_tokens=1, stop_tokens=(), cache_salt=secrets.token_hex(8))
    other = dataclasses.replace(one, cache_salt=secrets.token_hex(8))
    reused = []
    for sampling in (one, one, other):
        generation = worker.generate(prompt, sampling)
        list(generation)
        reused.append(generation.cached_tokens)
    assert reused[0] == reused[2] == 0
    assert 0 < reused[1] <= len(prompt)


def test_penalties_biases_and_priority_arrive(worker: VllmEngine) -> None:
    free = Sampling(temperature=0, max_tokens=8, stop_tokens=())
    biased = dataclasses.replace(free, extra={"logit_bias": {17: 100, 18: 85}})
    assert set(tokens_of(list(worker.generate(hello(), biased)))) == {17}
    # What each use costs outweighs the difference in the end.
    costly = dataclasses.replace(biased, max_tokens=40, frequency_penalty=2.0)
    assert set(tokens_of(list(worker.generate(hello(), costly)))) == {17, 18}
    plain = tokens_of(list(worker.generate(hello(), free)))
    first = dataclasses.replace(free, extra={"priority": -5})
    assert tokens_of(list(worker.generate(hello(), first))) == plain
    with pytest.raises(Unsupported, match="thermostat"):
        list(worker.generate(hello(), dataclasses.replace(free, extra={"thermostat": 1})))


def test_a_cancel_stops_the_work(worker: VllmEngine, url: str) -> None:
    over_url = open_engine("vllm", "nano", engine_url=url)
    for asked in (worker, over_url):
        before = metric(worker, "generation_tokens_total")
        generation = asked.generate(hello(), Sampling(max_tokens=1900, stop_tokens=()))
        next(generation)
        generation.cancel()
        assert list(generation)[-1].finish_reason == "cancelled"
        deadline = time.monotonic() + 60
        while metric(worker, "num_requests_running"):
            assert time.monotonic() < deadline, "vLLM goes on"
            time.sleep(0.05)
        assert metric(worker, "generation_tokens_total") - before < 1000
    over_url.close()


def metric(worker: VllmEngine, name: str) -> float:
    """A number that vLLM reports about itself."""
    text = worker._http.get("http://vllm/metrics").text
    return sum(float(n) for n in re.findall(rf"^vllm:{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))


@pytest.fixture
def gptoss_serve(url: str, tmp_path: Path) -> Iterator[str]:
    """`gptoss serve` with vLLM behind it; its base URL."""
    arguments = ("serve", "--inference-backend", "vllm", "--engine-url", url, "--port", "0")
    log = tmp_path / "log"
    with gptoss(*arguments, "--store", "memory", log=log, says=r"serving on (\S+)") as base:
        yield base


def test_our_apis_over_it(gptoss_serve: str) -> None:
    weather = {"type": "function", "name": "weather", "parameters": CITY, "strict": True}
    with openai.OpenAI(base_url=gptoss_serve, api_key="x", timeout=240) as client:
        response = client.responses.create(
            model="nano",
            input="What is the weather in Lyon?",
            tools=[weather],  # type: ignore[list-item]
            tool_choice="required",
            max_output_tokens=150,
            temperature=0,
        )
        call: Any = response.output[-1]
        assert call.type == "function_call"
        assert call.name == "weather"
        jsonschema.validate(json.loads(call.arguments), CITY)
        assert response.usage is not None
        assert response.usage.output_tokens > 0
        stream = client.chat.completions.create(
            model="nano",
            messages=[{"role": "user", "content": "Hello!"}],
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=80,
            temperature=0,
        )
        chunks = list(stream)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices)
    assert choices[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None


def test_vllm_runs_our_python_over_mcp(worker: VllmEngine, python_server: str) -> None:
    """vLLM's own Responses API, its own rendering and loop; only the tool is ours."""
    require(bool(python_server), "bubblewrap is not installed")
    replies = []
    for sum_ in ("17 + 25", "31 + 44", "23 * 19"):
        body = {"model": "nano", "input": f"What is {sum_}?", "temperature": 0}
        body |= {"max_output_tokens": 200, "enable_response_messages": True}
        body |= {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}
        answer = worker._http.post("responses", json=body)
        assert answer.status_code == 200, answer.text
        messages = answer.json()["output_messages"]
        replies += [m["content"][0]["text"] for m in messages if m.get("name") == "python"]
    assert {reply.strip() for reply in replies} & {"42", "75", "437"}
