"""A worker's life, with a program in vLLM's place: it serves, fails, ends, and leaves nobody."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gptoss_harmony import Sampling, open_engine
from gptoss_harmony.errors import EngineError, UsageError
from gptoss_harmony.testing import tokens_of
from gptoss_serve.engines import vllm_worker
from gptoss_serve.engines.vllm_process import VllmProcess, explain, parse_arguments

SERVER = '''
"""Speaks the wire from a Unix socket, says 7, and has a child that would outlive it."""
import http.server, json, os, socketserver, subprocess, sys

arguments = sys.argv[1:]
if "--explode" in arguments:
    print("INFO all is well so far")
    raise NotImplementedError("No MXFP4 MoE backend supports the deployment configuration")
value = lambda flag: arguments[arguments.index(flag) + 1]
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
facts = {"pids": [os.getpid(), child.pid], "arguments": arguments, "environment": dict(os.environ)}
with open(os.path.join(os.path.dirname(__file__), "facts"), "w") as file:
    json.dump(facts, file)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        model = {"id": value("--served-model-name"), "max_model_len": 64}
        self.reply(json.dumps({"data": [model]}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "--die" in arguments and body.get("stream"):
            print("RuntimeError: the memory is full", flush=True)
            os._exit(1)
        choice = {"token_ids": [7], "finish_reason": "length"}
        chunk = json.dumps({"choices": [choice]})
        self.reply(f"data: {chunk}\\n\\n" if body.get("stream") else chunk)

    def reply(self, text):
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def address_string(self):
        return "socket"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


Server(value("--uds"), Handler).serve_forever()
'''


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter whose vllm is the program above."""
    package = tmp_path / "site" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text(SERVER)
    program = tmp_path / "python"
    site = tmp_path / "site"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def facts(tmp_path: Path) -> Callable[[], dict]:  # type: ignore[type-arg]
    """What the server saw when it started."""
    path = tmp_path / "site" / "vllm" / "entrypoints" / "openai" / "facts"
    return lambda: json.loads(path.read_text())


def assert_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while alive := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_it_serves_and_leaves_nobody(
    python: Path, facts: Callable[[], dict], tmp_path: Path
) -> None:  # type: ignore[type-arg]
    worker = VllmProcess.start(str(python), tmp_path, name="m", arguments=["--seed", "1"])
    with worker.client() as http:
        assert http.get("models").json()["data"][0]["id"] == "m"
    seen = facts()
    assert seen["arguments"][-2:] == ["--seed", "1"]
    assert {"--uds", "--structured-outputs-config"} <= set(seen["arguments"])
    assert seen["environment"]["VLLM_NO_USAGE_STATS"] == "1"
    socket = seen["arguments"][seen["arguments"].index("--uds") + 1]
    assert os.stat(Path(socket).parent).st_mode & 0o077 == 0, "others may open the socket"
    assert all(map(is_alive, seen["pids"]))
    worker.close()
    worker.close()
    assert_gone(seen["pids"])
    assert not Path(socket).parent.exists()


@pytest.mark.slow
def test_an_engine_over_it(python: Path, facts: Callable[[], dict]) -> None:  # type: ignore[type-arg]
    engine = open_engine("vllm", "nano", engine_python=str(python), context=32)
    try:
        outputs = list(engine.generate([5], Sampling(max_tokens=1)))
        assert tokens_of(outputs) == [7]
        assert engine.spec.model_id == "nano"
    finally:
        engine.close()
    arguments = facts()["arguments"]
    assert arguments[arguments.index("--max-model-len") + 1] == "32"
    folder = Path(arguments[arguments.index("--model") + 1])
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {
        p.name for p in folder.iterdir()
    }
    assert_gone(facts()["pids"])


@pytest.mark.slow
def test_a_death_under_way_is_explained(python: Path) -> None:
    engine = open_engine("vllm", "nano", engine_python=str(python), engine_args="die")
    try:
        with pytest.raises(EngineError, match="worker has ended: RuntimeError: the memory is full"):
            list(engine.generate([5], Sampling(max_tokens=1)))
    finally:
        engine.close()


def test_a_start_that_fails_says_why(python: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="did not start: NotImplementedError: No MXFP4") as caught:
        VllmProcess.start(str(python), tmp_path, name="m", arguments=["--explode"])
    assert "--experts bf16" in str(caught.value)
    assert "INFO all is well so far" in str(caught.value)


def test_a_removed_folder_is_noticed(
    python: Path,
    facts: Callable[[], dict],  # type: ignore[type-arg]
    tmp_path: Path,
) -> None:
    worker = VllmProcess.start(str(python), tmp_path, name="m", arguments=[])
    arguments = facts()["arguments"]
    shutil.rmtree(Path(arguments[arguments.index("--uds") + 1]).parent)
    with pytest.raises(EngineError, match="somebody removed"):
        worker._wait_until_it_serves()
    worker.close()
    assert_gone(facts()["pids"])


def test_an_interpreter_without_vllm(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(EngineError, match="pip install vllm"):
        VllmProcess.start(str(bare), tmp_path, name="m", arguments=[])
    with pytest.raises(UsageError, match="--engine-python"):
        VllmProcess.start(str(tmp_path / "none"), tmp_path, name="m", arguments=[])


@pytest.mark.parametrize("victim", ["us", "worker"])
def test_a_killed_program_takes_everything_along(
    python: Path,
    facts: Callable[[], dict],  # type: ignore[type-arg]
    tmp_path: Path,
    victim: str,
) -> None:
    code = f"""
        import pathlib, sys
        from gptoss_serve.engines.vllm_process import VllmProcess
        folder = pathlib.Path({str(tmp_path)!r})
        worker = VllmProcess.start({str(python)!r}, folder, name="m", arguments=[])
        print(worker._process.pid, flush=True)
        sys.stdin.read()
        worker.close()
    """
    us = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert us.stdin is not None
    assert us.stdout is not None
    worker = int(us.stdout.readline())
    pids = facts()["pids"]
    assert all(map(is_alive, pids))
    os.kill(us.pid if victim == "us" else worker, signal.SIGKILL)
    assert_gone([worker, *pids] if victim == "us" else pids[:1])
    if victim == "us":
        arguments = facts()["arguments"]
        assert not Path(arguments[arguments.index("--uds") + 1]).parent.exists()
    else:
        os.kill(pids[1], signal.SIGKILL)  # the program in vLLM's place does not look after its own
    us.communicate()


def test_arguments_are_written_like_options() -> None:
    words = (
        'tensor_parallel_size=2 enforce_eager --dtype=bfloat16 compilation_config=\'{"a": "b=c"}\''
    )
    assert parse_arguments(words) == [
        "--tensor-parallel-size",
        "2",
        "--enforce-eager",
        "--dtype",
        "bfloat16",
        "--compilation-config",
        '{"a": "b=c"}',
    ]
    with pytest.raises(UsageError, match="--engine-args"):
        parse_arguments("a='b")


def test_options_that_exclude_one_another() -> None:
    with pytest.raises(UsageError, match="not both"):
        open_engine("vllm", "nano", engine_python="python", engine_url="http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match="--engine-python"):
        open_engine("vllm", "nano", engine_args="enforce_eager")


def test_a_log_without_errors_is_shown() -> None:
    assert explain("one\n\ntwo\n") == "its log names no error\nThe end of its log:\n  one\n  two"


def test_both_entries_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_worker.importlib.metadata, "version", lambda name: "0.33.0")
    assert vllm_worker.command(["m", "--uds", "s"])[2:] == [
        "vllm.entrypoints.cli.main",
        "serve",
        "m",
        "--uds",
        "s",
    ]
