"""A jail of Linux namespaces made by bubblewrap; needs no daemon and starts in milliseconds.

Inside there is the host's /usr and this interpreter, read-only, and nothing else of the host: no
network, no other processes, no capabilities, an own user, small /tmp and /dev/shm, and a filter
on system calls. Memory, processes and processor time are bounded by a control group where one can
be made, and by resource limits and watching in any case.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from gptoss_tools.errors import SandboxError
from gptoss_tools.python.cgroup import Cgroup
from gptoss_tools.python.limits import Limits
from gptoss_tools.python.sandbox import CODE
from gptoss_tools.python.seccomp import seccomp_program
from gptoss_tools.python.watch import Watch, memory_words
from gptoss_tools.python.workspace import MOUNT, Workspace

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = ("/etc/ld.so.cache", "/etc/localtime", "/etc/fonts", "/etc/mime.types")
_TOO_BROAD = frozenset(map(Path, ("/", "/home", "/root", "/etc", "/var", "/run", "/tmp", "/opt")))


class BubblewrapSandbox:
    """Makes a fresh bubblewrap jail for each program.

    Args:
        program: the bwrap program; None finds it on the path.
        python: the interpreter to lend to the jail; None is the running one. Its folders are
            visible inside, read-only.

    Raises:
        SandboxError: bubblewrap is not there.
    """

    name = "bubblewrap"

    def __init__(self, *, program: str | None = None, python: str | None = None) -> None:
        found = program or shutil.which("bwrap")
        if sys.platform != "linux" or found is None:
            raise SandboxError(
                "bubblewrap is not installed; on Linux get it with: apt-get install bubblewrap"
            )
        self._program = found
        self.python = python or sys.executable
        self._prefixes = _interpreter_folders(self.python)
        self._filter = seccomp_program()

    def spawn(
        self, argv: Sequence[str], workspace: Workspace, *, limits: Limits, exchange: bool = False
    ) -> BubblewrapJail:
        """See `Sandbox.spawn`."""
        cgroup = Cgroup(limits)
        filter_read, filter_write = os.pipe()
        output_read, output_write = os.pipe()
        try:
            # The filter (about 1 KiB) fits the pipe's buffer: nobody has to read it yet.
            os.write(filter_write, self._filter)
            os.close(filter_write)
            command = [
                *cgroup.launcher(),
                self._program,
                *self._mounts(workspace, limits, exchange=exchange),
                *self._isolation(filter_read),
                "--",
                *self._enter(argv, workspace, limits),
            ]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                pass_fds=(filter_read,),
                env={},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            os.close(output_read)
            cgroup.close()
            raise SandboxError(f"{self._program} cannot be started: {error.strerror}") from error
        finally:
            os.close(filter_read)
            os.close(output_write)
        return BubblewrapJail(process, output_read, cgroup, workspace, limits)

    def _mounts(self, workspace: Workspace, limits: Limits, *, exchange: bool) -> list[str]:
        arguments = ["--size", str(16 << 20), "--tmpfs", "/"]
        small = str(limits.disk_bytes)
        arguments += ["--proc", "/proc", "--dev", "/dev"]
        arguments += ["--perms", "1777", "--size", small, "--tmpfs", "/dev/shm"]
        arguments += ["--perms", "1777", "--size", small, "--tmpfs", "/tmp"]
        for path in _SYSTEM:
            if os.path.islink(path):
                arguments += ["--symlink", os.readlink(path), path]
            elif os.path.isdir(path):
                arguments += ["--ro-bind", path, path]
        arguments += [*_parents("/etc/passwd"), "--ro-bind", str(workspace.passwd), "/etc/passwd"]
        for path in _ETC:
            arguments += ["--ro-bind-try", path, path]
        for path in self._prefixes:
            arguments += [*_parents(path), "--ro-bind-try", path, path]
        arguments += [*_parents(MOUNT), "--bind", str(workspace.data), MOUNT]
        arguments += [*_parents(CODE), "--ro-bind", str(workspace.code), CODE]
        if exchange:
            path = str(workspace.exchange)
            arguments += [*_parents(path), "--bind", path, path]
        return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/"]

    def _isolation(self, filter_descriptor: int) -> list[str]:
        # Without --unshare-user root keeps a real change of user possible (see enter.py): a user
        # mapped from root would escape the kernel's count of processes per user.
        kinds = ["ipc", "pid", "net", "uts", "cgroup-try"]
        arguments = [f"--unshare-{kind}" for kind in kinds]
        if os.geteuid() == 0:
            arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            arguments += ["--unshare-user", "--cap-drop", "ALL"]
        arguments += ["--hostname", "jail", "--new-session", "--die-with-parent", "--clearenv"]
        for name, value in _ENVIRONMENT.items():
            arguments += ["--setenv", name, value]
        return [*arguments, "--seccomp", str(filter_descriptor)]

    def _enter(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> list[str]:
        source = resources.files("gptoss_tools.python").joinpath("enter.py").read_text("utf-8")
        bounds = {
            "RLIMIT_CORE": 0,
            "RLIMIT_DATA": limits.memory_bytes,
            "RLIMIT_FSIZE": limits.disk_bytes,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_NOFILE": 1024,
            "RLIMIT_NPROC": limits.processes,
        }
        user = str(workspace.user) if os.geteuid() == 0 else ""
        order = [user, MOUNT, *(f"{name}={value}" for name, value in bounds.items())]
        return [self.python, "-I", "-S", "-c", source, *order, "--", *argv]


_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",  # each thread of it would reserve memory and a process slot
    "OMP_NUM_THREADS": "1",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "TERM": "dumb",
    "TMPDIR": "/tmp",
}


class BubblewrapJail:
    """A running jail; see `Jailed`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        output: int,
        cgroup: Cgroup,
        workspace: Workspace,
        limits: Limits,
    ) -> None:
        self.output = output
        self._process = process
        self._cgroup = cgroup
        self._limits = limits
        self._watch = Watch(process.pid, workspace, limits, memory=not cgroup.bounds_memory)
        self._killed = False

    def wait(self, timeout: float) -> int | None:
        """See `Jailed.wait`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout)
        return None

    def breach(self) -> str | None:
        """See `Jailed.breach`."""
        if self._cgroup.out_of_memory():
            return memory_words(self._limits)
        return self._watch.look(now=self._process.poll() is not None)

    def kill(self) -> None:
        """See `Jailed.kill`."""
        if self._killed:
            return
        self._killed = True
        # The death of bwrap's first process ends the whole process namespace.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._cgroup.close()
        os.close(self.output)


def _parents(path: str) -> list[str]:
    """Make the folders above a mount, open to all: bwrap would copy a closed host folder's mode."""
    arguments = []
    for parent in reversed(Path(path).parents):
        if parent not in (Path("/"), Path("/tmp"), Path("/usr")):
            arguments += ["--perms", "0755", "--dir", str(parent)]
    return arguments


def _interpreter_folders(python: str) -> list[str]:
    """The folders an interpreter needs beyond the system's, as they are named on the host."""
    if os.path.realpath(python) == os.path.realpath(sys.executable):
        wanted = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    else:
        script = "import sys; print(sys.prefix); print(sys.base_prefix)"
        wanted = subprocess.run(
            [python, "-I", "-c", script], capture_output=True, text=True, check=True
        ).stdout.split("\n")
    folders = sorted(set(_outside_system(map(Path, filter(None, wanted)))))
    return [
        path
        for path in folders
        if not any(Path(path).is_relative_to(f) and path != f for f in folders)
    ]


def _outside_system(folders: Iterator[Path]) -> Iterator[str]:
    for folder in folders:
        for path in (folder, folder.resolve()):
            if path in _TOO_BROAD:
                raise SandboxError(
                    f"the interpreter lives in {path}, too broad a folder to show to a jail; "
                    f"use one in a virtual environment or in /usr"
                )
            if not path.is_relative_to("/usr"):
                yield str(path)
