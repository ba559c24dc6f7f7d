"""The folder that a conversation sees as /mnt/data, and the places of its jail on the host.

What is in it was written by untrusted code: it is walked by descriptor, never through a link, and
counted with bounds.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from pathlib import Path

from gptoss_tools.errors import SandboxError

MOUNT = "/mnt/data"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DEPTH = 48
# Far above what accounts use; one id per conversation, so that per-user bounds are per jail.
_FIRST_USER, _USERS = 1_600_000_000, 100_000_000


class Workspace:
    """Folders of one conversation, removed with `close`.

    Attributes:
        data: what the jail mounts at /mnt/data.
        exchange: a short path that exists inside and outside (sockets of a kernel).
        code: what the jail mounts read-only beside it.
        passwd: an account file that names nobody but the jail's user.
        user: the numeric user and group that jailed code runs as.

    Args:
        folder: keep the conversation's files here, also after `close`; None makes a temporary one.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="gptoss-"))
        self.data = Path(folder).resolve() if folder is not None else self._base / "data"
        self.exchange = self._base / "x"
        self.code = self._base / "code"
        self.passwd = self._base / "passwd"
        is_root = os.geteuid() == 0
        self.user = self._choose_user() if is_root else os.getuid()
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            for own in (self.exchange, self.code):
                own.mkdir()
            self.passwd.write_text(f"user:x:{self.user}:{self.user}:user:/tmp:/bin/sh\n")
            if is_root:
                self._base.chmod(0o711)
                for writable in (self.data, self.exchange):
                    os.chown(writable, self.user, self.user)
        except OSError as error:
            self._remove()
            raise SandboxError(f"{self.data}: {error.strerror}; name a writable folder") from error

    def _choose_user(self) -> int:
        """The user of the conversation that left the folder here; else a fresh one."""
        owner = self.data.stat().st_uid if self.data.is_dir() else 0
        if owner in range(_FIRST_USER, _FIRST_USER + _USERS):
            return owner
        return _FIRST_USER + int.from_bytes(os.urandom(4)) % _USERS

    def close(self) -> None:
        """Remove the temporary folders. Idempotent."""
        self._remove()

    def _remove(self) -> None:
        # rm copes with folders nested deeper than Python recurses, and does not follow links.
        subprocess.run(["rm", "-rf", "--", str(self._base)], check=False, capture_output=True)

    def write_code(self, code: str) -> Path:
        """Put code where the jail can read it but not change it."""
        path = self.code / "main.py"
        path.unlink(missing_ok=True)
        path.write_text(code, encoding="utf-8", errors="surrogatepass")
        path.chmod(0o444)
        return path

    def save_file(self, stem: str, suffix: str, content: bytes) -> str:
        """Write a new file among untrusted ones and return its path as the jail sees it."""
        folder = os.open(self.data, _FOLDER)
        try:
            for number in range(1, 10_000):
                name = f"{stem}-{number}{suffix}"
                try:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    descriptor = os.open(name, flags, 0o644, dir_fd=folder)
                except FileExistsError:
                    continue
                with open(descriptor, "wb") as file:
                    if os.geteuid() == 0:
                        os.fchown(descriptor, self.user, self.user)
                    file.write(content)
                return f"{MOUNT}/{name}"
        finally:
            os.close(folder)
        raise SandboxError(f"too many files named {stem}-*{suffix} in {MOUNT}")

    def usage(self, *, max_entries: int) -> tuple[int, int]:
        """Bytes on disk and entries below the folder; stops counting at `max_entries`.

        A folder nested deeper than 48 levels, or closed by the jailed code, counts as too many
        entries: nobody could tell what is in it.
        """
        tally = _Tally(max_entries, owners=(self.user, os.geteuid()))
        tally.walk(os.open(self.data, _FOLDER), depth=0)
        return tally.size, tally.entries

    def remove_newer(self, than_ns: int) -> None:
        """Remove files that were written after a moment (nanoseconds of the wall clock)."""
        seconds = than_ns / 1e9
        command = ["find", str(self.data), "-xdev", "-mindepth", "1", "-not", "-type", "d"]
        newer = ["-newerct", f"@{seconds:.6f}", "-delete"]
        subprocess.run([*command, *newer], check=False, capture_output=True)


class _Tally:
    """Bytes and entries below a folder, at most one descriptor a level."""

    def __init__(self, most: int, *, owners: tuple[int, ...]) -> None:
        self.size = self.entries = 0
        self._most = most
        self._owners = owners

    def walk(self, folder: int, *, depth: int) -> None:
        """Count what is in an open folder, then close it."""
        try:
            for name in os.listdir(folder):
                self.entries += 1
                if depth > _MAX_DEPTH:
                    self.entries = self._most + 1
                if self.entries > self._most:
                    return
                self._enter(folder, name, depth)
        finally:
            os.close(folder)

    def _enter(self, folder: int, name: str, depth: int) -> None:
        owner = os.fstat(folder).st_uid
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            self.size += found.st_blocks * 512
            if not stat.S_ISDIR(found.st_mode):
                return
            owner = found.st_uid
            below = os.open(name, _FOLDER, dir_fd=folder)
        except PermissionError:
            if owner in self._owners:
                self.entries = self._most + 1
            return
        except OSError:  # it went away while we looked
            return
        self.walk(below, depth=depth + 1)
