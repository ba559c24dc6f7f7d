"""Our side of a worker: vLLM's server in its own interpreter, which lives and dies with us.

vLLM brings a module of the same name as ours for the harmony format, and wants its own release of
PyTorch, so it gets a Python of its own. What runs there is its own HTTP server, on a socket that
only this user can open: the interface that vLLM documents and keeps, where its Python classes move
with every release. So a worker and a server elsewhere are the same to the engine.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import httpx

from gptoss_harmony.encoding import VOCABULARY_FILE
from gptoss_harmony.errors import EngineError, UsageError
from gptoss_serve.engines import vllm_worker

_SECONDS_TO_CLOSE: Final = 30.0
_SECONDS_TO_DIE: Final = 3.0
_TAIL_LINES: Final = 12
_CAUSE: Final = re.compile(r"(?:^|\s)((?:\w+\.)*[A-Z]\w*(?:Error|Exception)): (\S.*)")
# With these the server holds whole answers to a grammar, reasoning and markers included.
_STRUCTURED: Final = '{"backend": "guidance", "enable_in_reasoning": true}'


class VllmProcess:
    """A running worker; `close` ends it.

    Attributes:
        name: under which it serves the model.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, name: str) -> None:
        self.name = name
        self._process = process
        self._folder = folder

    @classmethod
    def start(cls, python: str, model: Path, *, name: str, arguments: Sequence[str]) -> Self:
        """Start a worker and wait until it serves, however long its weights take to load.

        Args:
            python: an interpreter that has vLLM.
            model: a Hugging Face folder.
            name: for the model.
            arguments: further ones of vLLM's server.

        Raises:
            UsageError: there is no such interpreter.
            EngineError: vLLM did not start; the message has its reason and the end of its log.
        """
        program = shutil.which(os.path.expanduser(python))
        if program is None:
            raise UsageError(
                f"--engine-python: {python} is no program; give the Python that has vLLM, such as "
                "vllm-venv/bin/python"
            )
        folder = Path(tempfile.mkdtemp(prefix="gptoss-vllm-"))
        command = [program, vllm_worker.__file__, str(model), "--served-model-name", name]
        command += ["--uds", str(folder / "socket"), "--enable-prompt-tokens-details"]
        command += ["--uvicorn-log-level", "warning"]
        command += ["--structured-outputs-config", _STRUCTURED, *arguments]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle
                env=_environment(),
            )
        worker = cls(process, folder, name)
        try:
            worker._wait_until_it_serves()
        except BaseException:
            worker.close()
            raise
        return worker

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of its API."""
        transport = httpx.HTTPTransport(
            uds=str(self._folder / "socket"), limits=httpx.Limits(max_connections=None)
        )
        return httpx.Client(transport=transport, base_url="http://vllm/v1", **options)

    def fate(self) -> str | None:
        """Say why it ended, if it has; a server that went silent gets a moment to do so."""
        try:
            self._process.wait(_SECONDS_TO_DIE)
        except subprocess.TimeoutExpired:
            return None
        return f"the vLLM worker has ended: {explain(self._log())}"

    def close(self) -> None:
        """End it and everything that it started. Idempotent."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_CLOSE)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its server dies with it
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_until_it_serves(self) -> None:
        with self.client(timeout=5.0) as http:
            while self._process.poll() is None and self._folder.is_dir():
                if self._listens():
                    with contextlib.suppress(httpx.HTTPError):
                        if http.get("models").status_code == 200:
                            return
                time.sleep(0.1)
        raise EngineError(f"vLLM did not start: {explain(self._log())}")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._folder / "socket")) == 0

    def _log(self) -> str:
        try:
            return (self._folder / "log").read_text("utf-8", "replace")
        except FileNotFoundError:
            return f"OSError: somebody removed {self._folder}, where its socket and log were"


def parse_arguments(words: str) -> list[str]:
    """Translate `tensor_parallel_size=2 enforce_eager` into vLLM's flags.

    Raises:
        UsageError: a quote that is not closed.
    """
    try:
        given = shlex.split(words)
    except ValueError as error:
        raise UsageError(
            f"--engine-args: {error}; write name=value, separated by blanks"
        ) from error
    flags = []
    for word in given:
        name, equals, value = word.partition("=")
        flags.append(f"--{name.lstrip('-').replace('_', '-')}")
        flags += [value] if equals else []
    return flags


def explain(log: str) -> str:
    """Return the first error that a log names, what may help, and the log's end."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    causes = (match for line in lines if (match := _CAUSE.search(line)))
    cause = next(causes, None)
    reason = "its log names no error" if cause is None else f"{cause[1]}: {cause[2][:300]}"
    if "MXFP4" in reason:
        reason += "; with --experts bf16 it needs no MXFP4"
    elif reason.startswith("ModuleNotFoundError"):
        reason += "; make a Python that has vLLM: python -m venv vllm-venv, "
        reason += "vllm-venv/bin/pip install vllm"
    tail = "\n".join(f"  {line[:200]}" for line in lines[-_TAIL_LINES:])
    return f"{reason}\nThe end of its log:\n{tail}"


def _environment() -> dict[str, str]:
    """Ours, without what would show it our packages, and without its reports to others."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    defaults = {
        "HF_HUB_OFFLINE": "1",
        "TIKTOKEN_ENCODINGS_BASE": str(VOCABULARY_FILE.parent),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    return {**defaults, **kept, "PYTHONSAFEPATH": "1"}
