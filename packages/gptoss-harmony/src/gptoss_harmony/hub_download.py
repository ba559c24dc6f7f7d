"""Download the published weights from the Hugging Face Hub, and continue where a run stopped.

```
folder = download_model("gpt-oss-20b", layout="original")      # into the Hugging Face cache
folder = download_model("gpt-oss-20b", to=Path("weights"))     # into a plain folder
```

`huggingface_hub` (extra `hub`) lists and transfers the files: HF_ENDPOINT, HF_TOKEN, HF_HOME and
proxies work as everywhere. Unlike its own downloads, a partial file survives the end of the
process, because one file of gpt-oss-20b is 13.8 GB; and every large file is checked against the
SHA-256 that the hub states. In the cache the result looks as if any Hugging Face tool had made it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlparse

from gptoss_harmony.checkpoint_path import HUB_MODELS, hub_cache
from gptoss_harmony.errors import CheckpointError, HarmonyError, NotInstalled, UsageError

HubLayout = Literal["original", "hf", "metal"]
_HTTP_LIMIT = 50 * 10**9  # the hub serves larger files through its Xet protocol only
_HEX = re.compile(r"[0-9a-fA-F]{8,128}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file on the hub.

    Attributes:
        name: path inside the repository.
        size: bytes.
        blob: the hub's name for the content: SHA-256 of large files, git's hash of small ones.
        sha256: of large files; None for small ones.
    """

    name: str
    size: int
    blob: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class _Source:
    """A repository at a hub, through the module `huggingface_hub`."""

    hub: Any
    repository: str
    endpoint: str | None

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What the hub's client raises, whichever HTTP library its release is built on."""
        return (OSError, ValueError, *self.hub.errors.HfHubHTTPError.__bases__)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file goes: while it grows, when it is complete, and a link to that (cache only)."""

    partial: Path
    final: Path
    link: Path | None

    def complete(self, size: int) -> bool:
        """Whether the whole file is there (at the link, where links had to be files)."""
        places = [self.final] if self.link is None else [self.final, self.link]
        return any(path.is_file() and path.stat().st_size == size for path in places)


def download_model(
    model: str,
    *,
    layout: HubLayout = "original",
    to: Path | None = None,
    endpoint: str | None = None,
) -> Path:
    """Download one layout of a published model.

    Args:
        model: "gpt-oss-20b" or "gpt-oss-120b", with or without "openai/".
        layout: "original" and "metal" are folders of the repository, "hf" its top level.
        to: a folder; None means the Hugging Face cache.
        endpoint: address of the hub; None means HF_ENDPOINT, or huggingface.co.

    Returns:
        The folder that `Checkpoint.open` takes (for "metal", the folder with model.bin).

    Raises:
        NotInstalled: the extra `hub` is missing.
        UsageError: no such model.
        CheckpointError: hub out of reach, disk full, folder not writable, or damaged content.
    """
    name = model.removeprefix("openai/")
    if name not in HUB_MODELS:
        raise UsageError(f"{model!r} is not one of {', '.join(HUB_MODELS)}")
    source = _Source(_import_hub(), f"openai/{name}", endpoint)
    try:
        commit, files = _list_files(source, layout)
        root, places = _plan(source.repository, commit, files, to)
        _check_space(files, places, root)
        for file, place in zip(files, places, strict=True):
            _fetch(source, commit, file, place)
        if to is None:
            reference = root.parent.parent / "refs" / "main"
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit, "utf-8")
    except source.failures as error:
        raise _explain(source, error) from error
    return root if layout == "hf" else root / layout


def _import_hub() -> Any:
    """huggingface_hub with the submodules used here."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.file_download
        import huggingface_hub.utils
    except ImportError as error:
        raise NotInstalled(
            'downloading needs huggingface_hub: pip install "gptoss-harmony[hub]"'
        ) from error
    return huggingface_hub


def _list_files(source: _Source, layout: HubLayout) -> tuple[str, list[RemoteFile]]:
    """The current commit and the files of one layout."""
    repository = source.repository
    info = source.hub.HfApi(endpoint=source.endpoint).model_info(repository, files_metadata=True)
    files = []
    for sibling in info.siblings or ():
        path = PurePosixPath(sibling.rfilename)
        folder = path.parent.as_posix()
        if path.name.startswith(".") or folder != ("." if layout == "hf" else layout):
            continue
        lfs = sibling.lfs
        file = RemoteFile(
            sibling.rfilename,
            int(sibling.size if sibling.size is not None else -1),
            str(lfs.sha256 if lfs else sibling.blob_id),
            str(lfs.sha256) if lfs else None,
        )
        if file.size < 0 or not _HEX.fullmatch(file.blob) or "\\" in file.name:
            raise CheckpointError(f"{repository}: the hub describes {file.name!r} incompletely")
        files.append(file)
    if not files or not _HEX.fullmatch(str(info.sha)):
        raise CheckpointError(f"{repository} has no {layout} files at this hub")
    return str(info.sha), files


def _plan(
    repository: str, commit: str, files: list[RemoteFile], to: Path | None
) -> tuple[Path, list[_Place]]:
    """The root of the download and the place of each file."""
    if to is not None:
        root = to.expanduser().absolute()
        finals = [root / file.name for file in files]
        partials = [
            final.with_name(f".{final.name}.{file.blob[:12]}.part")
            for final, file in zip(finals, files, strict=True)
        ]
        return root, [_Place(p, f, None) for p, f in zip(partials, finals, strict=True)]
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    root = folder / "snapshots" / commit
    blobs = folder / "blobs"
    return root, [
        _Place(blobs / f"{file.blob}.part", blobs / file.blob, root / file.name) for file in files
    ]


def _check_space(files: list[RemoteFile], places: list[_Place], root: Path) -> None:
    """Refuse before the first byte what the disk cannot hold."""
    needed = 0
    for file, place in zip(files, places, strict=True):
        if not place.complete(file.size):
            needed += file.size - _partial_size(place, file.size)
    existing = next(path for path in (root, *root.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise CheckpointError(f"{existing} is not writable: choose another folder with --to")
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise CheckpointError(
            f"the download takes {needed / 1e9:.1f} GB more and the disk of {existing} has "
            f"{free / 1e9:.1f} GB free: make room, or choose another disk with --to"
        )


def _partial_size(place: _Place, size: int) -> int:
    """Bytes that an earlier run left; too many cannot be a beginning of the file."""
    have = place.partial.stat().st_size if place.partial.is_file() else 0
    return have if have <= size else 0


def _fetch(source: _Source, commit: str, file: RemoteFile, place: _Place) -> None:
    """Bring one file to its place, unless it is there."""
    if not place.complete(file.size):
        place.partial.parent.mkdir(parents=True, exist_ok=True)
        place.final.parent.mkdir(parents=True, exist_ok=True)
        if file.size > _HTTP_LIMIT:
            _fetch_huge(source, commit, file, place)
        else:
            while not _transfer(source, commit, file, place):
                continue  # from where the connection broke
            _verify(file, place.partial)
            place.partial.replace(place.final)
    if place.link is not None and place.final.exists() and not place.link.exists():
        place.link.parent.mkdir(parents=True, exist_ok=True)
        _link(place.final, place.link)


def _transfer(source: _Source, commit: str, file: RemoteFile, place: _Place) -> bool:
    """Append to the partial file; False if the connection broke after it had brought something."""
    hub, endpoint = source.hub, source.endpoint
    url = hub.hf_hub_url(source.repository, file.name, revision=commit, endpoint=endpoint)
    headers = hub.utils.build_hf_headers() | {"Accept-Encoding": "identity"}
    metadata = hub.file_download.get_hf_file_metadata(url)
    if urlparse(metadata.location).netloc != urlparse(url).netloc:
        # The bytes live on another host, which must not see the user's token.
        headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
    have = _partial_size(place, file.size)
    try:
        with place.partial.open("ab" if have else "wb") as output:
            hub.file_download.http_get(
                metadata.location,
                output,
                resume_size=have,
                headers=headers,
                expected_size=file.size,
                displayed_filename=file.name,
            )
    except source.failures as error:
        if (
            _status(error)
            or getattr(error, "errno", None)
            or _partial_size(place, file.size) <= have
        ):
            raise
        return False
    return True


def _fetch_huge(source: _Source, commit: str, file: RemoteFile, place: _Place) -> None:
    """A file beyond the hub's HTTP limit comes through hf_xet, into a folder of its own first."""
    staging = place.partial.with_suffix(".xet")
    path = source.hub.hf_hub_download(
        source.repository,
        file.name,
        revision=commit,
        local_dir=staging,
        endpoint=source.endpoint,
    )
    _verify(file, Path(path))
    Path(path).replace(place.final)
    shutil.rmtree(staging, ignore_errors=True)


def _verify(file: RemoteFile, path: Path) -> None:
    """Compare size and hash with what the hub states."""
    size = path.stat().st_size
    damaged = size != file.size
    if not damaged and file.sha256 is not None:
        with path.open("rb") as content:
            damaged = hashlib.file_digest(content, "sha256").hexdigest() != file.sha256
    if damaged:
        path.unlink()
        raise CheckpointError(
            f"{file.name} arrived damaged (its size or SHA-256 is not what the hub states) and was "
            "removed: run the same command again"
        )


def _link(target: Path, link: Path) -> None:
    """A relative symbolic link; where the system allows none, the file itself moves there."""
    try:
        link.symlink_to(os.path.relpath(target, link.parent))
    except (OSError, NotImplementedError):
        target.replace(link)


def _status(error: Exception) -> int | None:
    """The HTTP status that an error carries."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _explain(source: _Source, error: Exception) -> HarmonyError:
    """One sentence for what went wrong, with what to do."""
    repository, endpoint = source.repository, source.endpoint or source.hub.constants.ENDPOINT
    status = _status(error)
    if status in (401, 403, 404):
        return CheckpointError(
            f"{endpoint} does not offer {repository} to you (HTTP {status}): check HF_ENDPOINT and "
            "HF_TOKEN"
        )
    if status is not None:
        return CheckpointError(f"{endpoint} answered HTTP {status}: try again later")
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return CheckpointError("the disk is full; make room and run the same command again")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        where = getattr(error, "filename", None) or "the target folder"
        return CheckpointError(f"{where} is not writable: choose another folder with --to")
    first_line = (str(error) or type(error).__name__).splitlines()[0][:200]
    return CheckpointError(
        f"the download of {repository} from {endpoint} stopped ({first_line}): check the network "
        "and run the same command again, it continues where it stopped"
    )
