"""The wire to a Jupyter kernel: signed messages over three UNIX sockets, with bounds.

No event loop and no threads of its own; one owner at a time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gptoss_tools.errors import SandboxError

_MAX_WAITING = 32  # messages that our side keeps before it lets the kernel wait


class Channels:
    """Connections to one kernel.

    Args:
        connection: what the kernel's connection file says.
        max_message: bytes; a larger message closes its connection instead of filling our memory.
    """

    def __init__(self, connection: Mapping[str, Any], *, max_message: int) -> None:
        import zmq
        from jupyter_client.session import Session

        self._session = Session(
            key=str(connection["key"]).encode(), signature_scheme=connection["signature_scheme"]
        )
        self._context = zmq.Context()
        self._shell = self._open(zmq.DEALER, connection, "shell_port", max_message)
        self._control = self._open(zmq.DEALER, connection, "control_port", max_message)
        self._output = self._open(zmq.SUB, connection, "iopub_port", max_message)
        self._output.setsockopt(zmq.SUBSCRIBE, b"")
        self.replied = ""  # id of the last request that the kernel has answered
        self._went_well = True  # whether it said so of that request

    def _open(self, kind: int, connection: Mapping[str, Any], port: str, limit: int) -> Any:
        import zmq

        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, limit)
        socket.setsockopt(zmq.RCVHWM, _MAX_WAITING)
        socket.connect(f"ipc://{connection['ip']}-{connection[port]}")
        return socket

    def ready(self, timeout: float) -> bool:
        """Whether the kernel answers and its output arrives."""
        self._session.send(self._shell, "kernel_info_request", {})
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._receive(self._shell, 0.05) is not None:
                return self.output(deadline - time.monotonic()) is not None
        return False

    def execute(self, code: str, *, silent: bool = False) -> str:
        """Ask for code to be run; returns the id that its output will carry."""
        content = {
            "code": code,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        message = self._session.msg("execute_request", content)
        self._session.send(self._shell, message)
        return str(message["header"]["msg_id"])

    def interrupt(self) -> None:
        """Ask for what is running to be interrupted."""
        self._session.send(self._control, "interrupt_request", {})

    def output(self, timeout: float) -> dict[str, Any] | None:
        """The next output message, or None if none comes in time."""
        message = self._receive(self._output, timeout)
        self._take_replies(0)
        return message

    def went_well(self, message_id: str, timeout: float) -> bool:
        """Whether the kernel reports success of a request; so does one that says nothing in time.

        Output need not show a failure: a kernel without memory cannot even write its traceback.
        """
        if self.replied != message_id:
            self._take_replies(timeout)
        return self.replied != message_id or self._went_well

    def _take_replies(self, timeout: float) -> None:
        while (reply := self._receive(self._shell, timeout)) is not None:
            self.replied = str(reply.get("parent_header", {}).get("msg_id", ""))
            self._went_well = reply.get("content", {}).get("status", "ok") == "ok"
            timeout = 0

    def _receive(self, socket: Any, timeout: float) -> dict[str, Any] | None:
        import zmq

        if not socket.poll(max(int(timeout * 1000), 0), zmq.POLLIN):
            return None
        try:
            _, message = self._session.recv(socket, mode=zmq.NOBLOCK, copy=True)
        # A message that is not signed, or no message at all: jailed code wrote it, pass over it.
        except (ValueError, TypeError, KeyError, IndexError, zmq.ZMQError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._context.destroy(linger=0)


def connection_file(path: str, prefix: str, key: str) -> dict[str, Any]:
    """Write a kernel's connection file: sockets are `prefix-1` to `prefix-5`.

    Raises:
        SandboxError: the folder's path is too long for a socket.
    """
    from jupyter_client.connect import write_connection_file

    if len(prefix) > 100:
        raise SandboxError(f"{prefix}: too long for a socket; set TMPDIR to a shorter folder")
    _, info = write_connection_file(path, transport="ipc", ip=prefix, key=key.encode())
    return dict(info) | {"key": key}
