"""No jail at all: code runs as this user on this machine. Only for code that you wrote yourself.

It exists for machines inside a jail already (a disposable virtual machine); nothing chooses it by
itself, and its name says what it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from gptoss_tools.errors import SandboxError
from gptoss_tools.python.limits import Limits
from gptoss_tools.python.watch import Watch
from gptoss_tools.python.workspace import Workspace


class UnsafeHostSandbox:
    """Runs programs unprotected.

    Args:
        i_know_this_is_unsafe: must be True.

    Raises:
        SandboxError: it is not.
    """

    name = "unsafe-host"

    def __init__(self, *, i_know_this_is_unsafe: bool) -> None:
        if i_know_this_is_unsafe is not True:
            raise SandboxError("code on the bare host can do all that you can; use a jail")
        self.python = sys.executable

    def spawn(
        self, argv: Sequence[str], workspace: Workspace, *, limits: Limits, exchange: bool = False
    ) -> UnsafeHostProcess:
        """See `Sandbox.spawn`; there is no /mnt/data: the program starts in the folder itself."""
        command = [
            str(workspace.code / "main.py") if "/run/code" in word else word for word in argv
        ]
        output, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                cwd=workspace.data,
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        return UnsafeHostProcess(process, output, workspace, limits)


class UnsafeHostProcess:
    """A running program and its process group; see `Jailed`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        output: int,
        workspace: Workspace,
        limits: Limits,
    ) -> None:
        self.output = output
        self._process = process
        self._watch = Watch(process.pid, workspace, limits)
        self._killed = False

    def wait(self, timeout: float) -> int | None:
        """See `Jailed.wait`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout)
        return None

    def breach(self) -> str | None:
        """See `Jailed.breach`."""
        return self._watch.look(now=self._process.poll() is not None)

    def kill(self) -> None:
        """End the process group; a process that left the group survives (this is no jail)."""
        if self._killed:
            return
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self.output)
