"""A Jupyter kernel inside a jail: state that lives from call to call.

The kernel talks through UNIX sockets in the workspace's exchange folder, the only door of the jail,
with signed messages. A call that runs too long is interrupted, and its state survives; a kernel
that does not obey, dies or oversteps a bound is killed with all its processes and started afresh.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

from gptoss_harmony.errors import NotInstalled
from gptoss_tools.errors import SandboxError
from gptoss_tools.python.channels import Channels, connection_file
from gptoss_tools.python.limits import Limits, MiB
from gptoss_tools.python.output import CappedOutput
from gptoss_tools.python.plaintext import without_escapes
from gptoss_tools.python.sandbox import Jailed, Outcome, Sandbox
from gptoss_tools.python.workspace import Workspace

_START_SECONDS = 60.0
_GRACE_SECONDS = 5.0  # for an interrupt to be obeyed
_TICK = 0.05
_MAX_MESSAGE = 64 * MiB  # the kernel gathers a fifth of a second of output into one
_QUIET_TICKS = 40  # without output after the answer: what says that the call ended was lost
_LOST = "the Python session was restarted: variables and imports are gone, /mnt/data is kept"
# One stream: the kernel sends its two at different moments, and their order would be lost.
_PRELUDE = "import sys as _sys; _sys.stderr = _sys.stdout; del _sys"
_IMAGES = {"image/png": ".png", "image/jpeg": ".jpg", "image/svg+xml": ".svg"}


class Kernel:
    """One session. Not for use from several threads at once.

    Args:
        sandbox: the kind of jail; its interpreter must have ipykernel.
        workspace: the conversation's files.
        limits: bounds of the jail and of each call.

    Raises:
        NotInstalled: the extra is missing.
    """

    def __init__(self, sandbox: Sandbox, workspace: Workspace, *, limits: Limits) -> None:
        try:
            import jupyter_client  # noqa: F401
        except ImportError as error:
            raise NotInstalled(
                "stateful Python needs an extra; get it with: pip install 'gptoss-tools[jupyter]'"
            ) from error
        self._sandbox = sandbox
        self._workspace = workspace
        self._limits = limits
        self._jailed: Jailed | None = None
        self._channels: Channels | None = None

    def run(self, code: str, *, cancel: threading.Event | None = None) -> Outcome:
        """Run code in the session, starting it first if needed.

        Raises:
            SandboxError: no session can be started.
        """
        cancel = cancel or threading.Event()
        channels = self._channels or self._start()
        call = _Call(channels.execute(code), self._limits, self._workspace)
        stopped = self._follow(channels, call, cancel)
        if stopped is None:
            ok = call.ok and channels.went_well(call.id, _GRACE_SECONDS)
            return Outcome(output=call.output.text(), exit_code=0 if ok else 1)
        if not self._interrupted(channels, call, stopped):
            self.close()
            stopped = f"{stopped}; {_LOST}"
        return Outcome(output=call.output.text(), exit_code=None, stopped=stopped)

    def _follow(self, channels: Channels, call: _Call, cancel: threading.Event) -> str | None:
        """Take messages until the call ends (None) or must be stopped (the reason)."""
        deadline = time.monotonic() + self._limits.seconds
        quiet = 0
        while not call.ended and quiet < _QUIET_TICKS:
            if cancel.is_set():
                return "execution cancelled"
            if time.monotonic() > deadline:
                return f"execution timed out after {self._limits.seconds:g} seconds"
            if breach := self._broken():
                return breach
            if call.taken > self._limits.flood_bytes:
                return f"execution stopped: more than {self._limits.flood_bytes:,} bytes of output"
            message = channels.output(_TICK)
            call.take(message)
            quiet = quiet + 1 if message is None and channels.replied == call.id else 0
        return None

    def _broken(self) -> str | None:
        if self._jailed is None or self._jailed.wait(0) is not None:
            breach = self._jailed.breach() if self._jailed else None
            return breach or "the Python session died"
        return self._jailed.breach()

    def _interrupted(self, channels: Channels, call: _Call, stopped: str) -> bool:
        """Ask the kernel to interrupt the call; whether it obeyed and may live on."""
        if stopped.startswith(("execution stopped", "the Python session")):
            return False
        channels.interrupt()
        deadline = time.monotonic() + _GRACE_SECONDS
        while not call.ended and time.monotonic() < deadline:
            if self._broken() or call.taken > self._limits.flood_bytes:
                return False
            call.take(channels.output(_TICK))
        return call.ended

    def _start(self) -> Channels:
        for old in self._workspace.exchange.iterdir():
            old.unlink()
        file = self._workspace.exchange / "connection.json"
        prefix = str(self._workspace.exchange / "k")
        connection = connection_file(str(file), prefix, secrets.token_hex(32))
        file.chmod(0o444)
        argv = [self._sandbox.python, "-m", "ipykernel_launcher", "-f", str(file)]
        argv += ["--Application.log_level=50", "--HistoryManager.enabled=False"]
        jailed = self._sandbox.spawn(argv, self._workspace, limits=self._limits, exchange=True)
        self._jailed = jailed
        limit = max(_MAX_MESSAGE, self._limits.flood_bytes)
        self._channels = Channels(connection, max_message=limit)
        self._greet(jailed, self._channels)
        threading.Thread(target=_drain, args=(os.dup(jailed.output),), daemon=True).start()
        return self._channels

    def _greet(self, jailed: Jailed, channels: Channels) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not channels.ready(0.5):
            broken = self._broken()
            if broken is None and time.monotonic() > deadline:
                broken = f"it did not start within {_START_SECONDS:g} seconds"
            if broken:
                said = _read_some(jailed)
                self.close()
                if "No module named ipykernel" in said:
                    raise NotInstalled(
                        f"{self._sandbox.python} in the {self._sandbox.name} jail has no "
                        f"ipykernel; get it there with: pip install ipykernel"
                    )
                raise SandboxError(f"no Python session in the jail: {broken}; {said}")
        channels.execute(_PRELUDE, silent=True)

    def close(self) -> None:
        """End the session and everything in it. Idempotent."""
        if self._channels is not None:
            self._channels.close()
            self._channels = None
        if self._jailed is not None:
            self._jailed.kill()
            self._jailed = None


class _Call:
    """The messages of one execution, put together to what a reader of the notebook would see."""

    def __init__(self, message_id: str, limits: Limits, workspace: Workspace) -> None:
        self.output = CappedOutput(limits.output_chars)
        self.taken = 0
        self.ended = False
        self.ok = True
        self.id = message_id
        self._workspace = workspace
        self._at_line_start = True

    def take(self, message: dict[str, Any] | None) -> None:
        if message is None or message.get("parent_header", {}).get("msg_id") != self.id:
            return
        content = message.get("content", {})
        match message.get("msg_type"):
            case "stream":
                self._add(str(content.get("text", "")))
            case "execute_result" | "display_data":
                self._line(self._shown(content.get("data", {})))
            case "error":
                self.ok = False
                self._line("\n".join(map(str, content.get("traceback", []))))
            case "status" if content.get("execution_state") == "idle":
                self.ended = True

    def _add(self, text: str) -> None:
        self.taken += len(text)
        self._at_line_start = text.endswith("\n")
        self.output.append(without_escapes(text))

    def _line(self, text: str) -> None:
        """Text on lines of its own."""
        if text:
            self._add(("" if self._at_line_start else "\n") + text.rstrip("\n") + "\n")

    def _shown(self, data: dict[str, Any]) -> str:
        saved = list(self._saved(data))
        return "\n".join(saved) if saved else str(data.get("text/plain", ""))

    def _saved(self, data: dict[str, Any]) -> Iterator[str]:
        for kind, suffix in _IMAGES.items():
            if kind in data:
                self.taken += len(data[kind])
                try:
                    content = _image_bytes(kind, data[kind])
                    path = self._workspace.save_file("image", suffix, content)
                except (binascii.Error, OSError, SandboxError, ValueError) as error:
                    yield f"[image could not be saved: {error}]"
                else:
                    yield f"[image saved to {path}]"
                return


def _image_bytes(kind: str, text: Any) -> bytes:
    return str(text).encode() if kind == "image/svg+xml" else base64.b64decode(str(text))


def _drain(descriptor: int) -> None:
    """Throw away what the kernel's process writes past its messages, so that it never blocks."""
    os.set_blocking(descriptor, True)
    try:
        while os.read(descriptor, 1 << 16):
            pass
    finally:
        os.close(descriptor)


def _read_some(jailed: Jailed | None) -> str:
    if jailed is None:
        return ""
    os.set_blocking(jailed.output, False)
    with contextlib.suppress(OSError):
        return os.read(jailed.output, 4096).decode("utf-8", "replace").strip()[-1000:]
    return ""
