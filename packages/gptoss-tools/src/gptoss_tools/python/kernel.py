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
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

from gptoss_harmony.errors import NotInstalled
from gptoss_tools.errors import SandboxError
from gptoss_tools.python.limits import Limits, MiB
from gptoss_tools.python.output import CappedOutput
from gptoss_tools.python.plaintext import without_escapes
from gptoss_tools.python.sandbox import Jailed, Outcome, Sandbox
from gptoss_tools.python.workspace import Workspace

_START_SECONDS = 60.0
_GRACE_SECONDS = 5.0  # for an interrupt to be obeyed
_TICK = 0.05
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
        self._client: Any = None

    def run(self, code: str, *, cancel: threading.Event | None = None) -> Outcome:
        """Run code in the session, starting it first if needed.

        Raises:
            SandboxError: no session can be started.
        """
        cancel = cancel or threading.Event()
        if self._jailed is None:
            self._start()
        call = _Call(self._client.execute(code, allow_stdin=False), self._limits, self._workspace)
        stopped = self._follow(call, cancel)
        if stopped is None:
            return Outcome(output=call.output.text(), exit_code=0 if call.ok else 1)
        if not self._interrupted(call, stopped):
            self.close()
            stopped = f"{stopped}; {_LOST}"
        return Outcome(output=call.output.text(), exit_code=None, stopped=stopped)

    def _follow(self, call: _Call, cancel: threading.Event) -> str | None:
        """Take messages until the call ends (None) or must be stopped (the reason)."""
        deadline = time.monotonic() + self._limits.seconds
        while not call.ended:
            if cancel.is_set():
                return "execution cancelled"
            if time.monotonic() > deadline:
                return f"execution timed out after {self._limits.seconds:g} seconds"
            if breach := self._broken():
                return breach
            if call.taken > self._limits.flood_bytes:
                return f"execution stopped: more than {self._limits.flood_bytes:,} bytes of output"
            self._take(call)
        return None

    def _take(self, call: _Call) -> None:
        with contextlib.suppress(queue.Empty):
            call.take(self._client.get_iopub_msg(timeout=_TICK))

    def _broken(self) -> str | None:
        if self._jailed is None or self._jailed.wait(0) is not None:
            breach = self._jailed.breach() if self._jailed else None
            return breach or "the Python session died"
        return self._jailed.breach()

    def _interrupted(self, call: _Call, stopped: str) -> bool:
        """Ask the kernel to interrupt the call; whether it obeyed and may live on."""
        if stopped.startswith(("execution stopped", "the Python session")):
            return False
        message = self._client.session.msg("interrupt_request", {})
        self._client.control_channel.send(message)
        deadline = time.monotonic() + _GRACE_SECONDS
        while not call.ended and time.monotonic() < deadline:
            if self._broken() or call.taken > self._limits.flood_bytes:
                return False
            self._take(call)
        return call.ended

    def _start(self) -> None:
        from jupyter_client.connect import write_connection_file

        file = self._workspace.exchange / "connection.json"
        for old in self._workspace.exchange.iterdir():
            old.unlink()
        # With ipc "ip" is a path prefix: the sockets are exchange/k-1, exchange/k-2 and so on.
        _, self._connection = write_connection_file(
            str(file),
            transport="ipc",
            ip=str(self._workspace.exchange / "k"),
            key=secrets.token_hex(32).encode(),
        )
        file.chmod(0o444)
        argv = [self._sandbox.python, "-m", "ipykernel_launcher", "-f", str(file)]
        # The kernel itself needs threads, sockets and memory beyond those of the code.
        argv += ["--Application.log_level=50", "--HistoryManager.enabled=False"]
        self._jailed = self._sandbox.spawn(
            argv, self._workspace, limits=self._limits, exchange=True
        )
        self._drain = threading.Thread(target=_drain, args=(self._jailed.output,), daemon=True)
        self._connect()
        self._drain.start()

    def _connect(self) -> None:
        import zmq
        from jupyter_client.blocking.client import BlockingKernelClient

        context = zmq.Context()
        # A message larger than this closes the connection instead of filling our memory.
        context.setsockopt(zmq.MAXMSGSIZE, max(4 * MiB, self._limits.flood_bytes))
        context.setsockopt(zmq.RCVHWM, 100)
        context.setsockopt(zmq.LINGER, 0)
        client = BlockingKernelClient(context=context)
        client.load_connection_info(self._connection)
        client.start_channels(hb=False)
        self._client = client
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if broken := self._broken():
                said = _read_some(self._jailed)
                self.close()
                raise SandboxError(f"no Python session in the jail: {broken}; {said}")
            with contextlib.suppress(RuntimeError):
                client.wait_for_ready(timeout=0.5)
                client.execute_interactive(_PRELUDE, silent=True, timeout=_START_SECONDS)
                return
        self.close()
        raise SandboxError(f"the Python session did not start within {_START_SECONDS:g} seconds")

    def close(self) -> None:
        """End the session and everything in it. Idempotent."""
        if self._client is not None:
            self._client.stop_channels()
            self._client.context.destroy(linger=0)
            self._client = None
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
        self._id = message_id
        self._workspace = workspace
        self._at_line_start = True

    def take(self, message: dict[str, Any]) -> None:
        if message.get("parent_header", {}).get("msg_id") != self._id:
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
    with contextlib.suppress(OSError):
        while os.read(descriptor, 1 << 16):
            pass


def _read_some(jailed: Jailed | None) -> str:
    if jailed is None:
        return ""
    os.set_blocking(jailed.output, False)
    with contextlib.suppress(OSError):
        return os.read(jailed.output, 4096).decode("utf-8", "replace").strip()[-1000:]
    return ""
