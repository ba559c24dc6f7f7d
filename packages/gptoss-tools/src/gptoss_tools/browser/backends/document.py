"""From bytes to a page, by content type: HTML, PDF, and everything that is text."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable

import charset_normalizer

from gptoss_harmony.errors import NotInstalled
from gptoss_tools.browser.html import MAX_CHARACTERS, html_page
from gptoss_tools.browser.links import LinkTable, page_characters
from gptoss_tools.browser.page import Page, host_of
from gptoss_tools.errors import BackendError

_HTML = ("text/html", "application/xhtml+xml")
_TEXT = ("application/json", "application/xml", "application/javascript", "application/x-sh")
_MAX_PDF_PAGES = 1_000
_GUESSABLE = 512  # bytes; statistics on fewer mislead
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_MARKDOWN_LINK = re.compile(
    r"(?<!!)\[([^\[\]\n]{1,500})\]\(\s*<?([^\s()<>]{1,2000})>?[^()\n]{0,200}\)"
)


def document_page(
    data: bytes, url: str, *, content_type: str = "", charset: str | None = None
) -> Page:
    """Turn what a server or a file gave into a page.

    Args:
        data: the bytes.
        url: where they came from.
        content_type: without parameters; empty looks at the bytes.
        charset: what the server said; a byte order mark wins, and it wins over the document.

    Raises:
        BackendError: a type that has no text.
        NotInstalled: a PDF, and the extra is missing.
    """
    kind = content_type.lower() or _sniffed(data)
    readers: dict[str, Callable[[], Page]] = {
        "application/pdf": lambda: pdf_page(data, url),
        "text/markdown": lambda: markdown_page(decoded(data, charset), url),
        **dict.fromkeys(_HTML, lambda: html_page(decoded(data, charset, html=True), url)),
    }
    if kind in readers:
        return readers[kind]()
    if kind.startswith("text/") or kind in _TEXT or kind.endswith(("+json", "+xml")):
        return text_page(decoded(data, charset), url)
    raise BackendError(f"content of type {kind or 'unknown'} has no text to show")


def _sniffed(data: bytes) -> str:
    start = data[:1024].lstrip().lower()
    if start.startswith(b"%pdf-"):
        return "application/pdf"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in start:
        return "text/html"
    return "text/plain" if b"\x00" not in start else ""


def decoded(data: bytes, charset: str | None = None, *, html: bool = False) -> str:
    """Text of the bytes: byte order mark, then the server's word, the document's, then a guess."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data.decode(name, "replace")
    declared = _META.search(data[:4096]) if html else None
    for candidate in (charset, declared and declared.group(1).decode("ascii", "replace")):
        if candidate and _known(candidate):
            return data.decode(candidate, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(_guessed(data), "replace")


def _known(charset: str) -> bool:
    """Whether it is a text encoding; Python also knows compressions and escapes by such names."""
    try:
        return codecs.lookup(charset)._is_text_encoding and charset.lower() not in (
            "idna",
            "punycode",
            "unicode_escape",
            "raw_unicode_escape",
            "undefined",
        )
    except (LookupError, ValueError):
        return False


def _guessed(data: bytes) -> str:
    if len(data) < _GUESSABLE:
        return "cp1252"  # the web's default
    best = charset_normalizer.from_bytes(data[:65_536]).best()
    return best.encoding if best is not None else "utf-8"


def text_page(text: str, url: str, *, title: str = "") -> Page:
    """Plain text as a page."""
    body = page_characters(text[:MAX_CHARACTERS]).replace("\r\n", "\n").replace("\r", "\n")
    name = url.rstrip("/").rsplit("/", 1)[-1] or host_of(url)
    return Page(url, title or name, f"\nURL: {url}\n{body}")


def markdown_page(text: str, url: str, *, title: str = "") -> Page:
    """Markdown as it is written, with its links numbered and its first heading as the title."""
    table = LinkTable(url)
    body = page_characters(text[:MAX_CHARACTERS]).replace("\r\n", "\n")
    body = _MARKDOWN_LINK.sub(lambda match: table.render(match[2], match[1]), body)
    heading = re.search(r"^#{1,6}[ \t]+(.{1,300}?)[ \t#]*$", body, re.MULTILINE)
    name = title or (heading.group(1) if heading else "") or url.rsplit("/", 1)[-1]
    return Page(url, name, f"\nURL: {url}\n{body}", table.links)


def pdf_page(data: bytes, url: str) -> Page:
    """The text of a PDF, page by page."""
    try:
        import pypdf
    except ImportError as error:
        raise NotInstalled(
            "PDF files need an extra; get it with: pip install 'gptoss-tools[pdf]'"
        ) from error
    parts: list[str] = []
    length = 0
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        title = str((reader.metadata and reader.metadata.title) or "")
        for number, page in enumerate(reader.pages[:_MAX_PDF_PAGES]):
            parts.append(f"[Page {number + 1}]\n\n{page.extract_text().strip()}\n")
            length += len(parts[-1])
            if length > MAX_CHARACTERS:
                break
    # pypdf raises all kinds of errors over damaged files, RecursionError among them.
    except Exception as error:
        raise BackendError(f"the PDF cannot be read: {error!r}") from error
    return text_page("\n".join(parts), url, title=page_characters(title))
