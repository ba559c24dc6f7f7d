"""A jail made by a Docker engine: one fresh container for each program.

The container has no network, a read-only system, no capabilities, an ordinary user, no way to gain
privileges, small tmpfs at /tmp, and bounds on memory, processes and processor time. Docker's own
system call filter stays on. /mnt/data is a folder of this machine, so the engine must run here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from typing import Any

from gptoss_harmony.errors import NotInstalled
from gptoss_tools.errors import SandboxError
from gptoss_tools.python.limits import Limits
from gptoss_tools.python.sandbox import CODE
from gptoss_tools.python.watch import Watch, memory_words
from gptoss_tools.python.workspace import MOUNT, Workspace

DEFAULT_IMAGE = "python:3.11"
_USUAL_SOCKET = "unix:///var/run/docker.sock"


class DockerSandbox:
    """Makes a fresh container for each program.

    Args:
        image: the image; it must be on this machine already or be in a registry the engine reaches.
        python: path of the interpreter inside.
        mounts: folders of the host that are visible inside, read-only, at the same path.
        host: address of the engine; None reads DOCKER_HOST, then takes the usual socket.

    Raises:
        NotInstalled: the extra is missing.
        SandboxError: no engine answers, or the image cannot be had.
    """

    name = "docker"

    def __init__(
        self,
        *,
        image: str = DEFAULT_IMAGE,
        python: str = "python3",
        mounts: Sequence[str] = (),
        host: str | None = None,
    ) -> None:
        self._engine = _connect(host)
        self._image = image
        self._mounts = tuple(mounts)
        self.python = python
        self._require_image()

    def _require_image(self) -> None:
        docker = _docker()
        try:
            try:
                self._engine.images.get(self._image)
            except docker.errors.ImageNotFound:
                self._engine.images.pull(self._image)
        except docker.errors.DockerException as error:
            raise SandboxError(
                f"the Docker image {self._image} is not here and cannot be pulled ({error}); "
                f"get it with: docker image pull {self._image}"
            ) from error

    def spawn(
        self, argv: Sequence[str], workspace: Workspace, *, limits: Limits, exchange: bool = False
    ) -> DockerJail:
        """See `Sandbox.spawn`."""
        docker = _docker()
        try:
            container = self._engine.containers.create(
                self._image,
                list(argv),
                **self._bounds(workspace, limits),
                volumes=self._volumes(workspace, exchange=exchange),
            )
            return DockerJail(container, workspace, limits)
        except docker.errors.DockerException as error:
            raise SandboxError(f"the Docker engine cannot make the jail: {error}") from error

    def close(self) -> None:
        """Close the connection to the engine; running jails go on. Idempotent."""
        self._engine.close()

    @staticmethod
    def _bounds(workspace: Workspace, limits: Limits) -> dict[str, Any]:
        docker = _docker()
        small = f"size={limits.disk_bytes},mode=1777,nosuid,nodev"
        return {
            "network_mode": "none",
            "read_only": True,
            "user": f"{workspace.user}:{workspace.user}",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "mem_limit": limits.memory_bytes,
            "memswap_limit": limits.memory_bytes,
            "shm_size": min(limits.disk_bytes, limits.memory_bytes),
            "nano_cpus": int(limits.cpus * 1e9),
            "pids_limit": limits.processes,
            "tmpfs": {"/tmp": small},
            "ulimits": [
                docker.types.Ulimit(name="core", soft=0, hard=0),
                docker.types.Ulimit(name="fsize", soft=limits.disk_bytes, hard=limits.disk_bytes),
                docker.types.Ulimit(name="nofile", soft=1024, hard=1024),
            ],
            "ipc_mode": "private",
            "init": False,
            "working_dir": MOUNT,
            "hostname": "jail",
            "environment": {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"},
            "log_config": docker.types.LogConfig(type="none"),
            # One stream: the engine carries two, and their order would be lost.
            "entrypoint": ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh"],
        }

    def _volumes(self, workspace: Workspace, *, exchange: bool) -> dict[str, dict[str, str]]:
        volumes = {
            str(workspace.data): {"bind": MOUNT, "mode": "rw"},
            str(workspace.code): {"bind": CODE, "mode": "ro"},
        }
        for folder in self._mounts:
            volumes[folder] = {"bind": folder, "mode": "ro"}
        if exchange:
            path = str(workspace.exchange)
            volumes[path] = {"bind": path, "mode": "rw"}
        return volumes


class DockerJail:
    """A running container; see `Jailed`."""

    def __init__(self, container: Any, workspace: Workspace, limits: Limits) -> None:
        self._container = container
        self._limits = limits
        self._exit_code: int | None = None
        self._killed = False
        # What the container writes passes through a pipe, so that a flood waits in the engine.
        frames = container.attach(stdout=True, stderr=True, stream=True, logs=False)
        self.output, write_end = os.pipe()
        self._pump = threading.Thread(target=_pump, args=(frames, write_end), daemon=True)
        self._pump.start()
        try:
            container.start()
            container.reload()
        except BaseException:
            self.kill()
            raise
        process = _process_here(container.attrs["State"].get("Pid", 0), workspace.user)
        self._watch = Watch(process, workspace, limits, memory=False)

    def wait(self, timeout: float) -> int | None:
        """See `Jailed.wait`."""
        self._pump.join(timeout)  # the stream ends when the container does
        if self._exit_code is None and not self._pump.is_alive():
            self._container.reload()
            state = self._container.attrs["State"]
            if not state["Running"]:
                self._exit_code = int(state["ExitCode"])
        return self._exit_code

    def breach(self) -> str | None:
        """See `Jailed.breach`."""
        if self._exit_code is not None and self._container.attrs["State"].get("OOMKilled"):
            return memory_words(self._limits)
        return self._watch.look(now=self._exit_code is not None)

    def kill(self) -> None:
        """See `Jailed.kill`."""
        docker = _docker()
        if self._killed:
            return
        self._killed = True
        # The pipe first: the engine waits for its output to be taken before it lets go.
        os.close(self.output)
        with contextlib.suppress(docker.errors.NotFound):
            self._container.remove(force=True)
        self._pump.join(10)


def _process_here(process: int, user: int) -> int | None:
    """The container's first process, where the engine numbers processes as this machine does."""
    with contextlib.suppress(OSError):
        if process > 0 and os.stat(f"/proc/{process}").st_uid == user:
            return process
    return None


def _pump(frames: Any, write_end: int) -> None:
    """Copy the container's output into a pipe until either side is gone."""
    try:
        for frame in frames:
            view = memoryview(frame)
            while view:
                view = view[os.write(write_end, view) :]
    except OSError:  # nobody reads any more
        return
    finally:
        with contextlib.suppress(OSError):
            frames.close()
        # The SDK's stream shuts its socket down but leaves the answer that owns it open.
        if (response := getattr(frames, "_response", None)) is not None:
            response.close()
        os.close(write_end)


def _docker() -> Any:
    """The SDK."""
    try:
        import docker  # type: ignore[import-untyped]
    except ImportError as error:
        raise NotInstalled(
            "the Docker jail needs an extra; get it with: pip install 'gptoss-tools[docker]'"
        ) from error
    return docker


def _connect(host: str | None) -> Any:
    docker = _docker()
    address = host or os.environ.get("DOCKER_HOST") or _USUAL_SOCKET
    socket = address.removeprefix("unix://")
    if socket != address and not os.path.exists(socket):
        raise SandboxError(
            f"no Docker engine answers (there is no {socket}); start it, or set DOCKER_HOST to "
            f"its address"
        )
    try:
        engine = docker.DockerClient(base_url=host) if host else docker.from_env()
        engine.ping()
    except docker.errors.DockerException as error:
        raise SandboxError(
            f"no Docker engine answers ({error}); start it, or set DOCKER_HOST to its address"
        ) from error
    return engine
