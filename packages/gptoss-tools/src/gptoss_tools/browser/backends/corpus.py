"""An offline web: a folder of documents in one SQLite file with a full-text index.

```
report = build_index("handbook", "handbook.db")      # again later: only what changed is read
backend = CorpusBackend("handbook.db")
```

Documents get URLs below a base, so that relative links between them work as they do on a site.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag

from gptoss_harmony.errors import HarmonyError
from gptoss_tools.browser.backends.document import document_page, text_page
from gptoss_tools.browser.backends.protocol import SearchResult
from gptoss_tools.browser.links import without_links
from gptoss_tools.browser.page import Page
from gptoss_tools.errors import BackendError

VIEW_SOURCE = "view-source:"
BASE_URL = "https://corpus.local/"
_VERSION = 1
_TYPES = {
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".txt": "text/plain",
    ".text": "text/plain",
    ".rst": "text/plain",
    ".pdf": "application/pdf",
}
_MAX_FILE = 50_000_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS document (
    id INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL, stamp TEXT NOT NULL,
    url TEXT UNIQUE NOT NULL, page TEXT NOT NULL, source TEXT
);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    title, body, tokenize='porter unicode61'
);
"""
_WORD = re.compile(r"\w+")
_MAX_WORDS = 32
_SUMMARY = 300  # characters


@dataclass(slots=True)
class IndexReport:
    """What indexing did: counts, and the files left out with the reason."""

    added: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def build_index(
    folder: str | os.PathLike[str], index: str | os.PathLike[str], *, base_url: str = BASE_URL
) -> IndexReport:
    """Make or refresh the index of a folder; hidden files and links are passed over.

    Args:
        folder: HTML, Markdown, text and PDF files.
        index: the SQLite file.
        base_url: documents get this URL and their path behind it.

    Raises:
        BackendError: the folder or the index cannot be used.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BackendError(f"{folder} is not a folder; name one with documents")
    report = IndexReport()
    base = base_url.rstrip("/") + "/"
    try:
        with closing(sqlite3.connect(index)) as connection, connection:  # one transaction
            _prepare(connection)
            _update(connection, root, base, report)
    except sqlite3.DatabaseError as error:
        raise BackendError(f"{index} cannot be used as an index: {error}") from error
    return report


def _prepare(connection: sqlite3.Connection) -> None:
    connection.executescript(_SCHEMA)
    row = connection.execute("SELECT value FROM about WHERE key = 'version'").fetchone()
    if row is None:
        connection.execute("INSERT INTO about VALUES ('version', ?)", (str(_VERSION),))
    elif row[0] != str(_VERSION):
        raise BackendError(
            f"the index has format {row[0]}, not {_VERSION}; delete it and index anew"
        )


def _update(connection: sqlite3.Connection, root: Path, base: str, report: IndexReport) -> None:
    known = {
        path: (key, stamp)
        for key, path, stamp in connection.execute("SELECT id, path, stamp FROM document")
    }
    for path, kind in _documents(root):
        name = path.relative_to(root).as_posix()
        status = path.stat()
        stamp = f"{base} {status.st_mtime_ns} {status.st_size}"
        key, old_stamp = known.pop(name, (None, None))
        if stamp == old_stamp:
            report.unchanged += 1
            continue
        if key is not None:
            _forget(connection, key)
        try:
            _add(connection, path, name, kind, stamp, base)
            report.added += 1
        except (HarmonyError, OSError) as error:
            report.skipped[name] = str(error)
    for key, _ in known.values():
        _forget(connection, key)
        report.removed += 1


def _documents(root: Path) -> Iterator[tuple[Path, str]]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            kind = _TYPES.get(path.suffix.lower())
            if kind and not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path, kind


def _add(
    connection: sqlite3.Connection, path: Path, name: str, kind: str, stamp: str, base: str
) -> None:
    if path.stat().st_size > _MAX_FILE:
        raise BackendError(f"larger than {_MAX_FILE:,} bytes")
    page = document_page(path.read_bytes(), base + quote(name), content_type=kind)
    has_source = kind in ("text/html", "text/markdown")
    source = path.read_text("utf-8", "replace") if has_source else None
    cursor = connection.execute(
        "INSERT INTO document (path, stamp, url, page, source) VALUES (?, ?, ?, ?, ?)",
        (name, stamp, page.url, json.dumps(page.to_json(), ensure_ascii=False), source),
    )
    connection.execute(
        "INSERT INTO words (rowid, title, body) VALUES (?, ?, ?)",
        (cursor.lastrowid, page.title, page.text),
    )


def _forget(connection: sqlite3.Connection, key: int) -> None:
    connection.execute("DELETE FROM words WHERE rowid = ?", (key,))
    connection.execute("DELETE FROM document WHERE id = ?", (key,))


class CorpusBackend:
    """Search and pages from an index; never touches the network.

    Args:
        index: the file that `build_index` made; it is opened for reading only.
        source: what the backend is called.

    Raises:
        BackendError: it is not such a file.
    """

    def __init__(self, index: str | os.PathLike[str], *, source: str = "corpus") -> None:
        self.source = source
        path = Path(index)
        if not path.is_file():
            raise BackendError(
                f"there is no index {index}; make it with: gptoss tool browser index DIR"
            )
        self._connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False
        )
        weakref.finalize(self, self._connection.close)  # for those who forget `close`
        try:
            self._connection.execute("SELECT count(*) FROM document").fetchone()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise BackendError(f"{index} is not an index of ours: {error}") from error
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._connection.close()

    async def search(self, query: str, *, topn: int) -> list[SearchResult]:
        """Pages that have all words first, then pages that have some; titles count more."""
        return await asyncio.to_thread(self._search, query, topn)

    def _search(self, query: str, topn: int) -> list[SearchResult]:
        words = [word.lower() for word in _WORD.findall(query)][:_MAX_WORDS]
        if not words:
            return []
        quoted = [f'"{word}"' for word in words]
        found: dict[int, None] = dict.fromkeys(self._ranked(" AND ".join(quoted), topn))
        if len(found) < topn and len(words) > 1:
            found |= dict.fromkeys(self._ranked(" OR ".join(quoted), topn))
        return [self._result(key, words) for key in list(found)[:topn]]

    def _ranked(self, expression: str, topn: int) -> list[int]:
        statement = (
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 8.0, 1.0) LIMIT ?"
        )
        with self._lock:
            return [row[0] for row in self._connection.execute(statement, (expression, topn))]

    def _result(self, key: int, words: list[str]) -> SearchResult:
        with self._lock:
            row = self._connection.execute("SELECT page FROM document WHERE id = ?", (key,))
            page = Page.from_json(json.loads(row.fetchone()[0]))
        return SearchResult(title=page.title, url=page.url, summary=_summary(page, words))

    async def fetch(self, url: str) -> Page:
        """See `Backend.fetch`."""
        return await asyncio.to_thread(self._fetch, url)

    def _fetch(self, url: str) -> Page:
        target = url.removeprefix(VIEW_SOURCE)
        with self._lock:
            for candidate in _spellings(target):
                row = self._connection.execute(
                    "SELECT page, source FROM document WHERE url = ?", (candidate,)
                ).fetchone()
                if row is not None:
                    break
            else:
                raise BackendError("there is no such page in the corpus; search for it")
        page = Page.from_json(json.loads(row[0]))
        return page if target == url else text_page(row[1] or page.text, url, title=url)


def _spellings(url: str) -> Iterator[str]:
    """The ways in which a document's URL may be written."""
    plain = urldefrag(url).url
    path = quote(unquote(plain), safe=":/?&=%")
    for candidate in dict.fromkeys((plain, path)):
        yield candidate
        if candidate.endswith("/"):
            yield f"{candidate}index.html"


def _summary(page: Page, words: list[str]) -> str:
    """The text around the first of the words, without links."""
    _, _, text = without_links(page.text).partition(f"URL: {page.url}\n")
    flat = " ".join(text.split())
    hits = (match.start() for word in words if (match := re.search(rf"\b{word}", flat, re.I)))
    start = max(min(hits, default=0) - _SUMMARY // 3, 0)
    cut = flat[start : start + _SUMMARY]
    return f"{'… ' if start else ''}{cut}{' …' if start + _SUMMARY < len(flat) else ''}"
