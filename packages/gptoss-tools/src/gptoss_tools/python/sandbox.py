"""The jail contract: start a program inside, read what it writes, stop all of it.

```
sandbox = open_sandbox("auto")
with closing(Workspace()) as workspace:
    outcome = run_code(sandbox, "print(6 * 7)", workspace)
```

`BubblewrapSandbox`, `DockerSandbox` and, only by its explicit name, `UnsafeHostSandbox` have the
one verb `spawn`.
"""

from __future__ import annotations

import codecs
import os
import selectors
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gptoss_harmony.errors import UsageError
from gptoss_tools.errors import SandboxError
from gptoss_tools.python.limits import Limits
from gptoss_tools.python.output import CappedOutput
from gptoss_tools.python.workspace import MOUNT, Workspace

CODE = "/run/code"  # the read-only folder with the code of a stateless call
_TICK = 0.05  # seconds between looks at memory and disk


class Jailed(Protocol):
    """A running jail."""

    @property
    def output(self) -> int:
        """Descriptor to read standard output and error from, in the order they were written."""
        ...

    def wait(self, timeout: float) -> int | None:
        """The exit code of the program, or None if it still runs after `timeout` seconds."""
        ...

    def breach(self) -> str | None:
        """Which bound was overstepped, in words for the model; None while all is well."""
        ...

    def kill(self) -> None:
        """End every process in the jail and free what it held. Idempotent."""
        ...


class Sandbox(Protocol):
    """A way to jail a program."""

    name: str
    python: str  # path of the interpreter inside

    def spawn(
        self, argv: Sequence[str], workspace: Workspace, *, limits: Limits, exchange: bool = False
    ) -> Jailed:
        """Start a program in a fresh jail with `workspace` at /mnt/data.

        Args:
            argv: the program and its arguments.
            workspace: the conversation's files.
            limits: bounds of the jail.
            exchange: mount the workspace's exchange folder, writable, at its own path.

        Raises:
            SandboxError: the jail cannot be built; the message says why and what to do.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call did.

    Attributes:
        output: what it wrote, cut in the middle if long.
        exit_code: of the program; None if it was stopped.
        stopped: why it was stopped, in words; None if it ended by itself.
    """

    output: str
    exit_code: int | None
    stopped: str | None = None


def run_code(
    sandbox: Sandbox,
    code: str,
    workspace: Workspace,
    *,
    limits: Limits | None = None,
    cancel: threading.Event | None = None,
) -> Outcome:
    """Run a Python program in a fresh jail and wait for it.

    Args:
        sandbox: the kind of jail.
        code: the program; it runs in /mnt/data.
        workspace: the conversation's files.
        limits: bounds; None takes the defaults.
        cancel: stops the program when set, from any thread.
    """
    limits = limits or Limits()
    workspace.write_code(code)
    started = time.time_ns()
    argv = [sandbox.python, "-u", f"{CODE}/main.py"]
    jailed = sandbox.spawn(argv, workspace, limits=limits)
    try:
        outcome = collect(jailed, limits, cancel=cancel or threading.Event())
    finally:
        jailed.kill()
    if outcome.stopped and MOUNT in outcome.stopped:
        workspace.remove_newer(started)
    return outcome


def collect(jailed: Jailed, limits: Limits, *, cancel: threading.Event) -> Outcome:
    """Read a jail's output until it ends, runs out of time, oversteps a bound or is cancelled."""
    output = CappedOutput(limits.output_chars)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    deadline = time.monotonic() + limits.seconds
    taken, stopped, exit_code = 0, None, None
    os.set_blocking(jailed.output, False)
    with selectors.DefaultSelector() as selector:
        selector.register(jailed.output, selectors.EVENT_READ)
        while stopped is None:
            chunk = _read(selector, jailed.output)
            output.append(decoder.decode(chunk or b"", final=chunk == b""))
            taken += len(chunk or b"")
            if chunk == b"" or not chunk:
                exit_code = jailed.wait(0 if chunk is None else _TICK)
                if exit_code is not None and not chunk:
                    output.append(_rest(jailed.output, limits, decoder))
                    stopped = jailed.breach()
                    break
            stopped = _reason(jailed, limits, taken, deadline, cancel)
    return Outcome(output=output.text(), exit_code=None if stopped else exit_code, stopped=stopped)


def _reason(
    jailed: Jailed, limits: Limits, taken: int, deadline: float, cancel: threading.Event
) -> str | None:
    if cancel.is_set():
        return "execution cancelled"
    if time.monotonic() > deadline:
        return f"execution timed out after {limits.seconds:g} seconds"
    if taken > limits.flood_bytes:
        return f"execution stopped: more than {limits.flood_bytes:,} bytes of output"
    return jailed.breach()


def _read(selector: selectors.BaseSelector, descriptor: int) -> bytes | None:
    """Bytes that came within a tick; None if none did, b"" at the end."""
    if not selector.select(_TICK):
        return None
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None


def _rest(descriptor: int, limits: Limits, decoder: codecs.IncrementalDecoder) -> str:
    """What is still in the pipe after the program ended."""
    parts: list[bytes] = []
    while sum(map(len, parts)) < limits.flood_bytes:
        try:
            chunk = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            break
        if not chunk:
            break
        parts.append(chunk)
    return decoder.decode(b"".join(parts), final=True)


def open_sandbox(name: str = "auto") -> Sandbox:
    """The jail called `name`: bubblewrap, docker, or auto (the first of them that works).

    Raises:
        SandboxError: it cannot be built here; the message says why and what to install.
        UsageError: no such name.
    """
    from gptoss_tools.python.bubblewrap import BubblewrapSandbox
    from gptoss_tools.python.docker import DockerSandbox

    kinds: dict[str, type[BubblewrapSandbox] | type[DockerSandbox]] = {
        "bubblewrap": BubblewrapSandbox,
        "docker": DockerSandbox,
    }
    if name in kinds:
        return kinds[name]()
    if name != "auto":
        raise UsageError(f"there is no jail {name!r}; choose auto, bubblewrap or docker")
    reasons = []
    for kind in kinds.values():
        try:
            return kind()
        except SandboxError as error:
            reasons.append(str(error))
    raise SandboxError("no jail for Python code can be built here: " + "; ".join(reasons))
