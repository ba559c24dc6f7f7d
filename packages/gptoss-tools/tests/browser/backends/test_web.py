"""Plain HTTP: types, charsets, limits, redirects, robots."""

import asyncio
import gzip
import zlib
from typing import Any

import pytest

from gptoss_tools import WebBackend
from gptoss_tools.browser.page import Page
from gptoss_tools.errors import BackendError


def fetch(url: str, **options: Any) -> Page:
    return asyncio.run(WebBackend(allow_private=True, **options).fetch(url))


def test_a_page_and_its_source(site: Any) -> None:
    site.html("/a", "<title>T</title><a href='/b'>b</a>")
    page = fetch(f"{site.url}/a")
    assert (page.url, page.title) == (f"{site.url}/a", "T")
    assert page.text.endswith("【0†b】")
    source = fetch(f"view-source:{site.url}/a")
    assert source.url == f"view-source:{site.url}/a"
    assert "<title>T</title>" in source.text


@pytest.mark.parametrize(
    ("content_type", "data", "words"),
    [
        ("text/html", "<p>é".encode("latin-1"), "é"),
        ("text/html; charset=shift_jis", "<p>日本".encode("shift_jis"), "日本"),
        ("text/html", "<meta charset=koi8-r><p>Привет, мир".encode("koi8-r"), "Привет"),
        ("text/html; charset=utf-8", b"\xef\xbb\xbf<p>\xc3\xa9", "é"),
        ("text/html; charset=utf-8", "<p>é".encode("utf-16"), "é"),
        ("text/html; charset=nonsense", "<p>é".encode(), "é"),
        ("text/html; charset=hex", b"<p>plain", "plain"),
        ("text/html; charset=utf-8", b"<p>\xff\xfe wrong", "wrong"),
        ("text/plain", b"a\r\nb", "a\nb"),
        ("application/json", b'{"a": 1}', '{"a": 1}'),
        ("", b"<html><p>sniffed", "sniffed"),
        ("", b"just text", "just text"),
        ("text/markdown", b"# T\n\n[x](http://y.example/)", "【0†x†y.example】"),
    ],
)
def test_types_and_charsets(site: Any, content_type: str, data: bytes, words: str) -> None:
    site.answers["/x"] = (200, {"Content-Type": content_type} if content_type else {}, data)
    assert words in fetch(f"{site.url}/x").text


def test_types_without_text_and_errors(site: Any) -> None:
    site.answers["/z"] = (200, {"Content-Type": "application/zip"}, b"PK\x03\x04")
    with pytest.raises(BackendError, match="application/zip"):
        fetch(f"{site.url}/z")
    with pytest.raises(BackendError, match="answered 404"):
        fetch(f"{site.url}/nowhere")
    with pytest.raises(BackendError, match="ConnectError"):
        fetch("http://127.0.0.1:1/")
    with pytest.raises(BackendError, match="cannot search"):
        asyncio.run(WebBackend().search("q", topn=3))


def test_a_pdf(site: Any) -> None:
    pypdf = pytest.importorskip("pypdf")
    import io

    buffer = io.BytesIO()
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.add_metadata({"/Title": "A title"})
    writer.write(buffer)
    site.answers["/p"] = (200, {"Content-Type": "application/pdf"}, buffer.getvalue())
    page = fetch(f"{site.url}/p")
    assert page.title == "A title"
    assert "[Page 1]" in page.text
    site.answers["/p"] = (200, {"Content-Type": "application/pdf"}, b"%PDF-1.7 damaged")
    with pytest.raises(BackendError, match="PDF"):
        fetch(f"{site.url}/p")


def test_large_pages_are_refused_while_they_come(site: Any) -> None:
    site.answers["/l"] = (200, {"Content-Type": "text/plain"}, b"x" * 200_000)
    assert fetch(f"{site.url}/l").text
    with pytest.raises(BackendError, match="more than 100,000 bytes"):
        fetch(f"{site.url}/l", max_bytes=100_000)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_pages_and_bombs(site: Any, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    headers = {"Content-Type": "text/plain", "Content-Encoding": encoding}
    site.answers["/c"] = (200, headers, pack(b"packed text"))
    assert "packed text" in fetch(f"{site.url}/c").text
    site.answers["/c"] = (200, headers, pack(bytes(100 << 20)))
    with pytest.raises(BackendError, match="more than 10,000,000 bytes"):
        fetch(f"{site.url}/c")
    site.answers["/c"] = (200, headers, b"not packed at all")
    with pytest.raises(BackendError, match="damaged"):
        fetch(f"{site.url}/c")
    site.answers["/c"] = (200, {**headers, "Content-Encoding": "br"}, b"x")
    with pytest.raises(BackendError, match="with br"):
        fetch(f"{site.url}/c")


def test_a_server_that_never_ends_is_left(site: Any) -> None:
    site.answers["/s"] = (200, {"Content-Type": "text/plain", "Content-Length": "9999"}, b"x")
    with pytest.raises(BackendError):
        fetch(f"{site.url}/s", seconds=1.0)


def test_redirects_are_followed_a_few_times(site: Any) -> None:
    site.html("/end", "<p>arrived")
    site.answers["/one"] = (302, {"Location": "/two"}, b"")
    site.answers["/two"] = (301, {"Location": f"{site.url}/end"}, b"")
    page = fetch(f"{site.url}/one")
    assert page.url == f"{site.url}/end"
    site.answers["/loop"] = (302, {"Location": "/loop"}, b"")
    with pytest.raises(BackendError, match="more than 5 redirects"):
        fetch(f"{site.url}/loop")


def test_robots_are_respected(site: Any) -> None:
    site.answers["/robots.txt"] = (200, {}, b"User-agent: *\nDisallow: /closed\n")
    site.html("/open", "<p>open")
    site.html("/closed/x", "<p>closed")
    site.answers["/way"] = (302, {"Location": "/closed/x"}, b"")
    assert fetch(f"{site.url}/open")
    for path in ("/closed/x", "/way"):
        with pytest.raises(BackendError, match=r"robots\.txt"):
            fetch(f"{site.url}{path}")
    assert all(path != "/closed/x" for _, path, _, _ in site.asked)
    assert fetch(f"{site.url}/closed/x", respect_robots=False)
    site.answers["/robots.txt"] = (503, {}, b"")
    with pytest.raises(BackendError, match=r"robots\.txt"):
        fetch(f"{site.url}/open")


def test_a_url_without_a_scheme_is_https() -> None:
    with pytest.raises(BackendError, match="Connect"):
        fetch("127.0.0.1:1/x")
