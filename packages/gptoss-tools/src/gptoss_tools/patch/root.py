"""A folder that nothing leaves: every name is walked from an open descriptor, never through a link.

`..`, absolute paths outside, symbolic links (also planted while we look), special files, other
file systems and protected names such as `.git` are refused with a `PatchError`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptoss_tools.errors import PatchError

STATE = ".apply_patch"  # the journal's own folder inside the root
PROTECTED = frozenset({".git", STATE})
_LONGEST = 4_000  # bytes of a path; beyond 4,095 no other program could open the file
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A regular file as it was read: its bytes and what tells whether it changed since."""

    data: bytes
    mode: int
    identity: tuple[int, int, int, int]  # inode, size, mtime in ns, ctime in ns


class Root:
    """An open folder; use it as a context manager.

    Args:
        folder: the folder that paths are relative to.
        protected: names that no path may contain, in any letter case.
    """

    def __init__(self, folder: str | os.PathLike[str], *, protected: frozenset[str] = PROTECTED):
        self.folder = Path(folder).resolve()
        self._protected = frozenset(name.casefold() for name in protected | {STATE})
        try:
            self.descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PatchError(
                f"cannot open the folder {folder}: {error.strerror}; name an existing folder"
            ) from error
        self.device = os.fstat(self.descriptor).st_dev

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def relative(self, path: str) -> str:
        """The path below the root in plain form (`a/b.txt`), or a refusal."""
        if any(ord(char) < 32 or ord(char) == 127 for char in path):
            raise PatchError(f"{path!r}: control characters are not allowed in a path")
        if path.startswith("/"):
            inside = f"{self.folder}/"
            if not path.startswith(inside):
                raise PatchError(f"{path}: outside of {self.folder}; use a path relative to it")
            path = path[len(inside) :]
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise PatchError(f"{path}: `..` is not allowed; use a path relative to the root")
        if not parts or path.endswith("/"):
            raise PatchError(f"{path or 'an empty path'}: names a folder, not a file")
        self._check_names(path, parts)
        if len(os.fsencode(path)) > _LONGEST:
            raise PatchError(f"{path[:60]}...: a path is longer than {_LONGEST:,} bytes")
        return "/".join(parts)

    def _check_names(self, path: str, parts: list[str]) -> None:
        for part in parts:
            if part.casefold() in self._protected:
                raise PatchError(f"{path}: `{part}` is protected and cannot be patched")
            try:
                length = len(os.fsencode(part))
            except UnicodeEncodeError as error:
                raise PatchError(f"{path!r}: not a name that a file can have") from error
            if length > 255:
                raise PatchError(f"{path[:60]}...: a name is longer than 255 bytes")

    @contextlib.contextmanager
    def parent(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Descriptor of the folder that holds `path`, and the last name.

        Args:
            path: as `relative` returns it.
            create: make missing folders on the way.

        Raises:
            FileNotFoundError: where a folder is missing and `create` is off.
            PatchError: where a part is a link, not a folder, or on another file system.
        """
        *folders, name = path.split("/")
        current = os.dup(self.descriptor)
        try:
            for depth, folder in enumerate(folders):
                shown = "/".join(folders[: depth + 1])
                following = self._enter(current, folder, shown=shown, create=create)
                os.close(current)
                current = following
            yield current, name
        finally:
            os.close(current)

    def _enter(self, current: int, folder: str, *, shown: str, create: bool) -> int:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, dir_fd=current)
        try:
            following = os.open(folder, _FOLDER, dir_fd=current)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise PatchError(f"{shown}: not a plain folder inside the root") from error
        if os.fstat(following).st_dev != self.device:
            os.close(following)
            raise PatchError(f"{shown}: on another file system; use that folder as the root")
        return following

    def exists(self, path: str) -> bool:
        """Whether anything has this name, a dangling link included."""
        try:
            with self.parent(path) as (folder, name):
                os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str) -> Snapshot | None:
        """The file's bytes, mode and identity; None where there is no such file."""
        try:
            with self.parent(path) as (folder, name):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                _require_regular(path, found)
                descriptor = os.open(name, _FILE, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PatchError(f"{path}: cannot be read: {error.strerror}") from error
        with open(descriptor, "rb") as file:
            opened = os.fstat(descriptor)
            _require_regular(path, opened)
            return Snapshot(
                data=file.read(), mode=stat.S_IMODE(opened.st_mode), identity=_identity(opened)
            )

    def unchanged(self, path: str, snapshot: Snapshot | None) -> bool:
        """Whether the file is still the one that was read (or still absent)."""
        try:
            with self.parent(path) as (folder, name):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return snapshot is None
        return snapshot is not None and _identity(found) == snapshot.identity


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _require_regular(path: str, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise PatchError(f"{path}: a symbolic link; patch the file that it points to")
    if stat.S_ISDIR(found.st_mode):
        raise PatchError(f"{path}: a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise PatchError(f"{path}: not a regular file")
