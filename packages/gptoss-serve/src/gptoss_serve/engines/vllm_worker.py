"""Runs vLLM's server and ends it when the program that asked for it ends, however that ends.

This file is run by vLLM's own interpreter and so imports the standard library only, of Python 3.10
or newer:

```
PYTHON vllm_worker.py --uds FILE MODEL ... < pipe
```

The arguments are those of vLLM's server. The pipe says when to stop: it closes when whoever holds
its other end closes it or dies, even by SIGKILL. Then the server gets SIGTERM, and what is left of
its process group after a while SIGKILL, and the folder of the socket is removed. A server that ends
by itself leaves it, for its log to be read.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import select
import shutil
import signal
import subprocess
import sys

_SECONDS_TO_END = 10.0
_PR_SET_PDEATHSIG = 1


def command(arguments: list[str]) -> list[str]:
    """Return what starts the server; the first argument is the model.

    `vllm serve` wants the distribution `vllm`; builds under another name have the older entry.
    """
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        entry = ["vllm.entrypoints.openai.api_server", "--model"]
    else:
        entry = ["vllm.entrypoints.cli.main", "serve"]
    return [sys.executable, "-m", *entry, *arguments]


def die_with_parent() -> None:
    """In the server's process: a worker that is killed itself takes the server along."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def watch(server: subprocess.Popen[bytes], parent: int) -> None:
    """Return when the server has ended, or when nobody is there any more who wants it."""
    while server.poll() is None and os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], 0.2)
        if readable and not os.read(0, 1):
            return


def end(server: subprocess.Popen[bytes]) -> int:
    """Stop the server and everything that it started."""
    if server.poll() is None:
        server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(_SECONDS_TO_END)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    return server.wait()


def main(arguments: list[str]) -> int:
    """Serve until told to stop; the exit code is the server's."""
    if importlib.util.find_spec("vllm") is None:
        sys.stderr.write(f"ModuleNotFoundError: {sys.executable} has no vllm\n")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parent = os.getppid()
    server = subprocess.Popen(
        command(arguments),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent if sys.platform == "linux" else None,
    )
    unwanted = True
    try:
        watch(server, parent)
        unwanted = server.poll() is None
    finally:
        code = end(server)
        if unwanted:
            shutil.rmtree(os.path.dirname(arguments[arguments.index("--uds") + 1]), True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
