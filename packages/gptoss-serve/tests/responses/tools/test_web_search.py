"""`web_search`: what the items say, and what each field of the tool does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gptoss_serve import Toolbox
from gptoss_serve.browsing import ServedBrowser
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.toolbox import ToolSetup
from gptoss_tools.browser.backends.protocol import SearchResult
from gptoss_tools.browser.page import Link, Page
from gptoss_tools.errors import BackendError

SOURCES = "web_search_call.action.sources"
PAGES = [f"https://{host}/p" for host in ("tea.org", "shop.tea.org", "coffee.com", "xtea.org")]


class Shelf:
    """Four pages, each of which leads to the next."""

    source = "shelf"

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def search(self, query: str, *, topn: int) -> list[SearchResult]:
        self.asked.append(topn)
        return [SearchResult(title=url, url=url, summary="s") for url in PAGES][:topn]

    async def fetch(self, url: str) -> Page:
        if url not in PAGES:
            raise BackendError("there is no such page")
        number = PAGES.index(url)
        after = PAGES[(number + 1) % len(PAGES)]
        text = f"\nURL: {url}\nlong leaves\n【0†next】\n" + "more words\n" * 3000
        return Page(url, f"Page {number}", text, {0: Link(after)})


def browse(function: str, arguments: str) -> str:
    return f"<|channel|>analysis to=browser.{function} code<|message|>{arguments}<|call|>"


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def toolbox(shelf: Shelf) -> Toolbox:
    return Toolbox({"browser": lambda setup: ServedBrowser(shelf, setup)})


def test_actions_say_what_was_done(ask: Any, toolbox: Toolbox, done: str) -> None:
    calls = [
        browse("search", '{"query": "tea"}'),
        browse("open", '{"id": 1}'),
        browse("find", '{"pattern": "LEAVES"}'),
        browse("open", '{"id": 77, "cursor": 0}'),
    ]
    asker = ask(*calls, done, toolbox=toolbox)
    tools = [{"type": "web_search"}]
    response = asyncio.run(asker(input="Tea?", tools=tools, include=[SOURCES]))
    search, opened, found, missing = response["output"][:-1]
    assert search["action"] == {
        "type": "search",
        "query": "tea",
        "queries": ["tea"],
        "sources": [{"type": "url", "url": url} for url in PAGES],
    }
    assert opened["action"] == {"type": "open_page", "url": PAGES[1]}
    assert found["action"] == {"type": "find_in_page", "pattern": "LEAVES", "url": PAGES[1]}
    assert missing["status"] == "failed"
    assert {search["status"], opened["status"], found["status"]} == {"completed"}


def test_sources_only_for_whom_asks(ask: Any, toolbox: Toolbox, done: str) -> None:
    asker = ask(browse("search", '{"query": "tea"}'), done, toolbox=toolbox)
    response = asyncio.run(asker(input="Tea?", tools=[{"type": "web_search_preview"}]))
    assert "sources" not in response["output"][0]["action"]


@pytest.mark.parametrize("written", ["tea.org", "https://tea.org/", ".TEA.org."])
def test_only_pages_of_allowed_domains(
    ask: Any, toolbox: Toolbox, shelf: Shelf, done: str, written: str
) -> None:
    calls = [
        browse("search", '{"query": "tea"}'),
        browse("open", f'{{"id": "{PAGES[2]}"}}'),
        browse("open", f'{{"id": "{PAGES[1]}"}}'),
    ]
    asker = ask(*calls, done, toolbox=toolbox)
    tools = [{"type": "web_search", "filters": {"allowed_domains": [written]}}]
    response = asyncio.run(asker(input="Tea?", tools=tools, include=[SOURCES]))
    search, refused, opened = response["output"][:-1]
    assert [source["url"] for source in search["action"]["sources"]] == PAGES[:2]
    assert refused["status"] == "failed"
    assert opened["status"] == "completed"
    assert "only pages of these domains may be opened: tea.org" in asker.prompts[-1]
    assert shelf.asked == [50]


def test_no_domain_at_all_allows_none(shelf: Shelf) -> None:
    browser = ServedBrowser(shelf, ToolSetup(options={"filters": {"allowed_domains": []}}))
    assert "No results." in asyncio.run(browser.call("search", {"query": "tea"}))


def test_sizes(shelf: Shelf) -> None:
    shown = {}
    for size in ("low", "medium", "high"):
        browser = ServedBrowser(shelf, ToolSetup(options={"search_context_size": size}))
        shown[size] = len(asyncio.run(browser.call("open", {"id": PAGES[0]})))
    assert shown["low"] < shown["medium"] < shown["high"]


def test_the_model_knows_where_the_user_is(ask: Any, toolbox: Toolbox) -> None:
    asker = ask(toolbox=toolbox)
    place = {"type": "approximate", "city": "Lyon", "country": "FR", "timezone": "Europe/Paris"}
    asyncio.run(asker(input="Tea?", tools=[{"type": "web_search", "user_location": place}]))
    wanted = "The user is approximately in Lyon, FR and in the time zone Europe/Paris."
    assert wanted in asker.prompts[0]


def test_pages_stay_open_in_a_conversation(ask: Any, toolbox: Toolbox, done: str) -> None:
    calls = [browse("open", f'{{"id": "{PAGES[0]}"}}'), done, done, browse("open", '{"id": 0}')]
    asker = ask(*calls, done, toolbox=toolbox)
    tools = [{"type": "web_search"}]

    async def talk() -> None:
        first = await asker(input="Open it", tools=tools)
        between = await asker(input="Thanks", previous_response_id=first["id"])
        third = await asker(input="Next", tools=tools, previous_response_id=between["id"])
        assert third["output"][0]["action"]["url"] == PAGES[1]

    asyncio.run(talk())


def test_no_outside_access_where_none_is_wanted(ask: Any, toolbox: Toolbox, shelf: Shelf) -> None:
    tool = {"type": "web_search", "external_web_access": False}
    response = asyncio.run(ask(toolbox=toolbox)(input="Tea?", tools=[tool]))
    assert response["tools"] == []
    offline = Toolbox({"browser": lambda setup: ServedBrowser(shelf, setup)}, offline=["browser"])
    response = asyncio.run(ask(toolbox=offline)(input="Tea?", tools=[tool]))
    assert response["tools"] == [tool]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"search_context_size": "huge"}, "tools[0].search_context_size"),
        ({"filters": {"blocked_domains": ["x"]}}, "tools[0].filters.blocked_domains"),
        ({"filters": {"allowed_domains": "x"}}, "tools[0].filters.allowed_domains"),
        ({"user_location": {"planet": "Mars"}}, "tools[0].user_location.planet"),
        ({"search_content_types": ["image"]}, "tools[0].search_content_types.0"),
        ({"frobnicate": 1}, "tools[0].frobnicate"),
    ],
)
def test_mistakes_are_named(ask: Any, toolbox: Toolbox, fields: Any, param: str) -> None:
    tools = [{"type": "web_search", **fields}]
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(ask(toolbox=toolbox)(input="Tea?", tools=tools))
    assert refused.value.param == param


def test_a_search_can_be_demanded(ask: Any, toolbox: Toolbox, done: str) -> None:
    asker = ask('{"query": "tea"}<|call|>', done, toolbox=toolbox)
    for kind in ("web_search", "web_search_preview"):
        tools = [{"type": kind}]
        response = asyncio.run(asker(input="Hi", tools=tools, tool_choice={"type": kind}))
        assert [item["type"] for item in response["output"]] == ["web_search_call", "message"]
