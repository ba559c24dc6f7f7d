"""Writes a plan so that a crash, a kill or a full disk leaves all of it or nothing.

Everything lives in `.apply_patch/` inside the root (on the same file system, so that a rename
moves a finished file into place). One commit is one folder whose name says how far it got:

```
ID.new       images of all files before and after are being written     crash: thrown away
ID.commit    all images are on disk; files are being put into place     crash: finished later
ID.abort     putting into place failed; files are being put back        crash: put back later
NNNNNN.done  the record that `undo` reads
```

Whoever opens the journal next finishes or takes back what was interrupted, before anything else.
Every step may be repeated, so being killed while recovering is no different.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gptoss_tools.errors import JournalError, PatchError
from gptoss_tools.patch.plan import Change, Content, content_of
from gptoss_tools.patch.root import STATE, Root

KEEP = 20  # records that `undo` can go back through
_DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, PatchError)
_NEW, _COMMIT, _ABORT, _DONE = ".new", ".commit", ".abort", ".done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path of a commit: digests (None: no file) and modes of both sides."""

    path: str
    before: str | None
    after: str | None
    before_mode: int
    after_mode: int


class Journal:
    """The commits of one root; holds its lock between `with` and the end of the block."""

    def __init__(self, root: Root) -> None:
        self._root = root

    @contextlib.contextmanager
    def locked(self) -> Iterator[Journal]:
        """Take the lock and finish what was interrupted."""
        self._state = self._open_state()
        try:
            fcntl.flock(self._state, fcntl.LOCK_EX)
            try:
                self._hide_from_git()
                self._recover()
            except OSError as error:
                raise self._explained(error) from error
            yield self
        finally:
            os.close(self._state)

    def _open_state(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(STATE, 0o700, dir_fd=self._root.descriptor)
            return os.open(STATE, flags, dir_fd=self._root.descriptor)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise JournalError(f"{STATE} is not a plain folder; remove it") from error
            raise self._explained(error) from error

    def commit(self, changes: Sequence[Change], *, pops: str | None = None) -> None:
        """Put all changes into place.

        Args:
            changes: what `make_plan` found; their files must not have changed since.
            pops: a record that this commit takes back and therefore removes.

        Raises:
            PatchError: nothing was changed.
        """
        if not changes and pops is None:
            return
        name = f"{os.getpid()}-{os.urandom(6).hex()}"
        try:
            entries = self._stage(name + _NEW, changes, pops)
            self._require_unchanged(changes)
            os.rename(name + _NEW, name + _COMMIT, src_dir_fd=self._state, dst_dir_fd=self._state)
        except (OSError, PatchError) as error:
            self._discard(name + _NEW)
            raise self._explained(error) from error
        try:
            os.fsync(self._state)
            self._put(name + _COMMIT, entries, side="after")
        except (OSError, PatchError) as error:
            self._take_back(name)
            raise self._explained(error) from error
        # The patch is in place; if the bookkeeping fails, the next one to come completes it.
        with contextlib.suppress(OSError):
            self._finish(name + _COMMIT, pops)

    def _take_back(self, name: str) -> None:
        try:
            self._rename(name + _COMMIT, name + _ABORT)
        except OSError as error:
            raise JournalError(
                f"{error.strerror}; the patch is half written and will be completed by the next "
                f"apply_patch in this folder"
            ) from error
        self._resume(name + _ABORT, side="before")

    def last(self) -> tuple[str, list[Entry]] | None:
        """The newest record and its entries; None where there is nothing to take back."""
        records = self._records()
        if not records:
            return None
        return records[-1], self._manifest(records[-1])["entries"]

    def image(self, record: str, index: int, side: str) -> bytes:
        """The bytes that a record keeps of one side of one entry."""
        with open(self._open(f"{record}/{side}-{index}", os.O_RDONLY), "rb") as file:
            return file.read()

    # Staging: everything is written here before the first file of the user is touched.

    def _stage(self, folder: str, changes: Sequence[Change], pops: str | None) -> list[Entry]:
        os.mkdir(folder, 0o700, dir_fd=self._state)
        entries: list[Entry] = []
        for index, change in enumerate(changes):
            before = content_of(change.before)
            modes = [
                self._write(f"{folder}/{side}-{index}", content.data, content.mode)
                if content is not None
                else 0
                for side, content in (("before", before), ("after", change.after))
            ]
            entries.append(
                Entry(
                    path=change.path,
                    before=_digest_of(before),
                    after=_digest_of(change.after),
                    before_mode=modes[0],
                    after_mode=modes[1],
                )
            )
        manifest = {
            "pops": pops,
            "folders": self._missing_folders([change.path for change in changes]),
            "entries": [asdict(entry) for entry in entries],
        }
        self._write(f"{folder}/manifest.json", json.dumps(manifest).encode(), 0o600)
        self._sync(folder)
        return entries

    def _write(self, path: str, data: bytes, mode: int | None) -> int:
        """Write and sync a new file; mode None lets the umask decide. Returns the mode it got."""
        descriptor = self._open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if mode is not None:
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            return stat.S_IMODE(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def _missing_folders(self, paths: Sequence[str]) -> list[str]:
        """Folders that the commit will have to make, outermost first."""
        folders = {
            "/".join(path.split("/")[:depth])
            for path in paths
            for depth in range(1, path.count("/") + 1)
        }
        return sorted(folder for folder in folders if not self._root.exists(folder))

    def _require_unchanged(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if not self._root.unchanged(change.path, change.before):
                raise PatchError(f"{change.path}: changed while the patch was applied; try again")

    # Putting into place: each step may be repeated after a crash.

    def _put(self, folder: str, entries: Sequence[Entry], *, side: str) -> None:
        for index, entry in enumerate(entries):
            wanted = entry.after if side == "after" else entry.before
            if wanted is None:
                self._remove(entry.path)
            else:
                mode = entry.after_mode if side == "after" else entry.before_mode
                # As with any write, set-user bits go; nor can a planted journal set them.
                self._install(folder, f"{side}-{index}", entry.path, mode & 0o777)

    def _install(self, folder: str, image: str, path: str, mode: int) -> None:
        """Give a copy of an image the name of the file; the image itself stays for `undo`."""
        with open(self._open(f"{folder}/{image}", os.O_RDONLY), "rb") as file:
            data = file.read()
        current = self._root.read(path)
        if current is not None and current.data == data and current.mode == mode:
            return
        fresh = f"{folder}/fresh"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=self._state)
        self._write(fresh, data, mode)
        with self._root.parent(path, create=True) as (parent, name):
            self._keep_owner(fresh, mode, parent, name)
            os.rename(fresh, name, src_dir_fd=self._state, dst_dir_fd=parent)
            os.fsync(parent)

    def _keep_owner(self, fresh: str, mode: int, parent: int, name: str) -> None:
        """When root patches somebody's file, it stays theirs."""
        if os.geteuid() != 0:
            return
        try:
            owner = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            owner = os.fstat(parent)
        os.chown(fresh, owner.st_uid, owner.st_gid, dir_fd=self._state, follow_symlinks=False)
        os.chmod(fresh, mode, dir_fd=self._state)

    def _remove(self, path: str) -> None:
        with (
            contextlib.suppress(FileNotFoundError),
            self._root.parent(path) as (parent, name),
        ):
            os.unlink(name, dir_fd=parent)
            os.fsync(parent)

    def _finish(self, folder: str, pops: str | None) -> None:
        """Turn a finished commit into the newest record, or end one that takes a record back."""
        if pops is not None:
            if pops:
                self._remove_folders(self._manifest(pops)["folders"])
                self._discard(pops)
            self._discard(folder)
            return
        records = self._records()
        number = int(records[-1].removesuffix(_DONE)) + 1 if records else 1
        self._rename(folder, f"{number:06d}{_DONE}")
        for old in records[: max(len(records) + 1 - KEEP, 0)]:
            self._discard(old)

    # Recovery.

    def _recover(self) -> None:
        for name in sorted(os.listdir(self._state)):
            if name.endswith(_NEW):
                self._discard(name)
            elif name.endswith(_COMMIT):
                self._resume(name, side="after")
            elif name.endswith(_ABORT):
                self._resume(name, side="before")

    def _resume(self, folder: str, *, side: str) -> None:
        manifest = self._manifest(folder)
        self._require_untouched(folder, manifest["entries"])
        try:
            self._put(folder, manifest["entries"], side=side)
        except OSError as error:
            raise JournalError(
                f"an interrupted patch could not be finished: {error.strerror}; make room or "
                f"give write permission, then run again"
            ) from error
        if side == "after":
            self._finish(folder, manifest["pops"])
        else:
            self._remove_folders(manifest["folders"])
            self._discard(folder)

    def _remove_folders(self, folders: Sequence[str]) -> None:
        """Remove the folders that a commit had made, unless something else is in them by now."""
        for folder in reversed(folders):
            with contextlib.suppress(OSError), self._root.parent(folder) as (parent, name):
                os.rmdir(name, dir_fd=parent)

    def _require_untouched(self, folder: str, entries: Sequence[Entry]) -> None:
        """Never overwrite what somebody wrote after the interruption."""
        for entry in entries:
            snapshot = self._root.read(entry.path)
            now = _digest_of(content_of(snapshot))
            if now not in (entry.before, entry.after):
                raise JournalError(
                    f"{entry.path} was edited after an interrupted patch. Both versions are in "
                    f"{self._root.folder}/{STATE}/{folder}: put the right files in place and "
                    f"remove that folder"
                )

    def _manifest(self, folder: str) -> dict[str, Any]:
        """The manifest with its entries as objects, every path checked again."""
        try:
            with open(self._open(f"{folder}/manifest.json", os.O_RDONLY), "rb") as file:
                raw = json.load(file)
            entries = [Entry(**entry) for entry in raw["entries"]]
            paths = [entry.path for entry in entries] + raw["folders"]
            if any(self._root.relative(path) != path for path in paths):
                raise ValueError("a path in another form")
            modes = [mode for entry in entries for mode in (entry.before_mode, entry.after_mode)]
            if not all(isinstance(mode, int) for mode in modes):
                raise ValueError("a mode that is no number")
            pops = raw["pops"]
            if pops is not None and pops not in self._records():
                pops = ""  # already removed by the commit that was interrupted
        except _DAMAGE as error:
            raise JournalError(
                f"{self._root.folder}/{STATE}/{folder} is damaged; remove that folder"
            ) from error
        return {"entries": entries, "pops": pops, "folders": raw["folders"]}

    # Names inside the state folder.

    def _open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=self._state)

    def _records(self) -> list[str]:
        return sorted(name for name in os.listdir(self._state) if _is_record(name))

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._state, dst_dir_fd=self._state)
        os.fsync(self._state)

    def _sync(self, folder: str) -> None:
        descriptor = self._open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _discard(self, folder: str) -> None:
        """Remove a folder; a half-removed one is named as rubbish first."""
        rubbish = folder if folder.endswith(_NEW) else folder + _NEW
        with contextlib.suppress(FileNotFoundError):
            if rubbish != folder:
                self._rename(folder, rubbish)
            found = os.stat(rubbish, dir_fd=self._state, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(rubbish, dir_fd=self._state)
            else:
                os.unlink(rubbish, dir_fd=self._state)

    def _hide_from_git(self) -> None:
        with contextlib.suppress(FileExistsError):
            self._write(".gitignore", b"*\n", 0o600)

    def _explained(self, error: OSError | PatchError) -> PatchError:
        if isinstance(error, PatchError):
            return error
        if error.errno == errno.EXDEV:
            return PatchError("the patch crosses file systems; use each one as its own root")
        return PatchError(f"nothing was changed: {error.strerror} ({error.filename or 'writing'})")


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _is_record(name: str) -> bool:
    return name.endswith(_DONE) and name.removesuffix(_DONE).isdigit()


def _digest_of(content: Content | None) -> str | None:
    return None if content is None else digest(content.data)
