"""Exa and You.com against their documented wire, on a local server."""

import asyncio
import json
from typing import Any

import pytest

from gptoss_tools import ExaBackend, SimpleBrowserTool, YouComBackend
from gptoss_tools.errors import BackendError

JSON = {"Content-Type": "application/json"}


def answer(data: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, JSON, json.dumps(data).encode()


def test_exa_search_and_contents(site: Any) -> None:
    pytest.importorskip("exa_py")
    hit = {"id": "1", "url": "https://a.example/x", "title": "A title", "summary": "A summary"}
    site.answers["/search"] = answer({"results": [hit], "requestId": "r"})
    page = {"id": "1", "url": "https://a.example/x", "title": "T", "text": "<h1>H</h1><p>Text"}
    site.answers["/contents"] = answer({"results": [page], "requestId": "r", "statuses": []})
    tool = SimpleBrowserTool(backend=ExaBackend("web", api_key="k", base_url=site.url))

    async def talk() -> tuple[str, str]:
        found = await tool.call("search", {"query": "q", "topn": 3})
        return found, await tool.call("open", {"id": 0})

    found, opened = asyncio.run(talk())
    assert "【0†A title†a.example】 A summary" in found
    assert "# H" in opened
    (_, path, headers, body), (_, second, _, contents) = site.asked
    assert (path, second) == ("/search", "/contents")
    assert headers["x-api-key"] == "k"
    asked = json.loads(body)
    assert asked["query"] == "q"
    assert asked["numResults"] == 3
    assert asked["contents"]["summary"]
    fetched = json.loads(contents)
    assert fetched["urls"] == ["https://a.example/x"]
    assert fetched["text"]["includeHtmlTags"] is True


def test_exa_errors(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("exa_py")
    site.answers["/search"] = answer({"error": "out of credits"}, 402)
    with pytest.raises(BackendError, match="402"):
        asyncio.run(ExaBackend(api_key="k", base_url=site.url).search("q", topn=1))
    monkeypatch.delenv("EXA_API_KEY", raising=False)
    with pytest.raises(BackendError, match="EXA_API_KEY"):
        asyncio.run(ExaBackend().search("q", topn=1))


def test_youcom_search_and_contents(site: Any) -> None:
    web = {"url": "https://a.example/x", "title": "A", "snippets": ["one", "two"]}
    news = {"url": "https://n.example/", "title": "N", "description": "news"}
    site.answers["/v1/search"] = answer({"results": {"web": [web], "news": [news]}})
    site.answers["/v1/contents"] = answer(
        [{"url": "https://a.example/x", "title": "T", "html": "<p>Body"}]
    )
    tool = SimpleBrowserTool(backend=YouComBackend("web", api_key="k", base_url=site.url))

    async def talk() -> tuple[str, str]:
        found = await tool.call("search", {"query": "q", "topn": 2})
        return found, await tool.call("open", {"id": 0})

    found, opened = asyncio.run(talk())
    assert "【0†A†a.example】 one two" in found
    assert "【1†N†n.example】 news" in found
    assert "Body" in opened
    (method, path, headers, _), (second, contents, _, body) = site.asked
    assert (method, path) == ("GET", "/v1/search?query=q&count=2")
    assert {name.lower(): value for name, value in headers.items()}["x-api-key"] == "k"
    assert (second, contents) == ("POST", "/v1/contents")
    assert json.loads(body) == {"urls": ["https://a.example/x"], "livecrawl_formats": "html"}


def test_youcom_errors(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = YouComBackend(api_key="k", base_url=site.url)
    for reply, words in (
        ((429, {}, b"slow down"), "429: slow down"),
        ((200, JSON, b"{"), "not JSON"),
        (answer([]), "no contents"),
    ):
        site.answers["/v1/contents"] = reply
        with pytest.raises(BackendError, match=words):
            asyncio.run(backend.fetch("https://a.example/"))
    site.answers["/v1/search"] = answer({"results": {}})
    assert asyncio.run(backend.search("q", topn=3)) == []
    with pytest.raises(BackendError, match="does not answer"):
        asyncio.run(YouComBackend(api_key="k", base_url="http://127.0.0.1:1").search("q", topn=1))
    monkeypatch.delenv("YDC_API_KEY", raising=False)
    with pytest.raises(BackendError, match="YDC_API_KEY"):
        asyncio.run(YouComBackend().search("q", topn=1))
