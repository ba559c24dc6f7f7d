"""The browser on an offline corpus: golden displays, cursors, arguments, isolation, state."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from openai_harmony import Author, Message, Role, SystemContent, TextContent, ToolNamespaceConfig

from gptoss_harmony.testing import ToolContract
from gptoss_tools import CorpusBackend, SimpleBrowserTool
from gptoss_tools.browser.backends.protocol import SearchResult
from gptoss_tools.browser.page import Page
from gptoss_tools.errors import BackendError

TEA = """\
[1] Green tea (https://corpus.local/tea.html)
**viewing lines [0 - 4] of 4**

L0: 
L1: URL: https://corpus.local/tea.html
L2: # Green tea
L3: 
L4: Green tea is brewed at 80 degrees. 【0†Home】"""

SEARCH = """\
[0] boils
**viewing lines [0 - 5] of 5**

L0: 
L1: URL: 
L2: # Search Results
L3: 
L4:   * 【0†plain.txt†corpus.local】 A text without markup. Boiling water makes steam.
L5:   * 【1†Water†corpus.local】 # Water Water boils at 100 degrees. Read about tea."""

FOUND = """\
[1] Find results for text: `degrees` in `Water` \
(https://corpus.local/notes/water.md/find?pattern=degrees)
**viewing lines [0 - 2] of 2**

L0: # 【0†match at L4】
L1: Water boils at 100 degrees. Read about tea.
L2: """


def call(function: str, arguments: Any) -> Message:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return Message(
        author=Author(role=Role.ASSISTANT),
        content=[TextContent(text=text)],
        channel="analysis",
        recipient=f"browser.{function}",
    )


class TestContract(ToolContract):
    good_call = call("search", {"query": "tea"})

    @pytest.fixture
    def tool(self, backend: CorpusBackend) -> SimpleBrowserTool:
        return SimpleBrowserTool(backend=backend)


@pytest.fixture
def tool(backend: CorpusBackend) -> SimpleBrowserTool:
    return SimpleBrowserTool(backend=backend)


def ask(tool: SimpleBrowserTool, function: str, **arguments: Any) -> str:
    return asyncio.run(tool.call(function, arguments))


def body(text: str) -> list[str]:
    return text.split("\n")[3:]


def test_golden_search_and_open(tool: SimpleBrowserTool) -> None:
    assert ask(tool, "search", query="boils") == SEARCH
    ask(tool, "search", query="green tea")
    tool = SimpleBrowserTool(backend=tool.backend)
    ask(tool, "search", query="green tea")
    assert ask(tool, "open", id=0) == TEA


def test_golden_find(tool: SimpleBrowserTool) -> None:
    ask(tool, "open", id="https://corpus.local/notes/water.md")
    assert ask(tool, "find", pattern="DEGREES") == FOUND
    assert "No `find` results for pattern: `lemonade`" in ask(
        tool, "find", pattern="lemonade", cursor=0
    )


def test_a_find_result_leads_back_to_its_line(tool: SimpleBrowserTool) -> None:
    ask(tool, "open", id="https://corpus.local/long.html")
    ask(tool, "find", pattern="paragraph 200 ")
    text = ask(tool, "open", id=0)
    assert text.startswith("[2] Long (https://corpus.local/long.html)\n**viewing lines [398 - ")
    assert "L402: Paragraph 200 of the long page about nothing." in text


def test_the_window_is_a_thousand_tokens_or_as_many_lines_as_asked(
    tool: SimpleBrowserTool,
) -> None:
    from gptoss_harmony.encoding import load_encoding

    text = ask(tool, "open", id="https://corpus.local/long.html")
    shown = "\n".join(body(text))
    tokens = len(load_encoding().encode_text(shown))
    assert 1024 <= tokens < 1024 + 40, "rounded up by one line"
    assert len(body(ask(tool, "open", num_lines=300))) == 300
    assert body(ask(tool, "open", loc=500, num_lines=2))[0].startswith("L500: ")
    last = ask(tool, "open", loc=800)
    assert "**viewing lines [800 - 800] of 800**" in last


def test_every_page_keeps_its_own_identity(tool: SimpleBrowserTool) -> None:
    ask(tool, "search", query="tea")
    ask(tool, "search", query="boils")
    assert ask(tool, "open", cursor=0).startswith("[2] tea\n")
    assert ask(tool, "open", cursor=1).startswith("[3] boils\n")
    assert "Green tea" in ask(tool, "open", cursor=0, id=0)


def test_topn_is_honoured(tool: SimpleBrowserTool) -> None:
    def hits(**arguments: Any) -> int:
        return ask(tool, "search", query="tea water text", **arguments).count("†corpus.local】")

    assert hits(topn=1) == 1
    assert hits(top_n=2) == 2
    assert hits(topn=0) == 1
    assert hits() > 2


def test_numeric_strings_are_link_ids_and_urls_are_fetched_afresh(
    tool: SimpleBrowserTool,
) -> None:
    ask(tool, "open", id="https://corpus.local/index.html")
    assert ask(tool, "open", id="0").startswith("[1] Green tea")
    assert ask(tool, "open", id=0.0, cursor="0").startswith("[2] Green tea")
    known = len(tool.get_tool_state()["pages"])
    ask(tool, "open", id=0, cursor=0)
    assert len(tool.get_tool_state()["pages"]) == known, "a link to a known page is not fetched"
    ask(tool, "open", id="https://corpus.local/tea.html")
    assert len(tool.get_tool_state()["pages"]) == known + 1, "a URL always is"


def test_view_source(tool: SimpleBrowserTool) -> None:
    ask(tool, "open", id="https://corpus.local/tea.html")
    text = ask(tool, "open", view_source=True)
    assert "view-source:https://corpus.local/tea.html" in text
    assert "<h1>Green tea</h1>" in text


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("open", {"id": 0}, "No page is open yet"),
        ("find", {"pattern": "x"}, "No page is open yet"),
        ("search", {}, "needs the argument `query`"),
        ("search", {"query": None}, "needs the argument `query`"),
        ("search", {"query": 3}, "`query` should be a string, not `int`"),
        ("search", {"query": "x", "recency": 3}, "no argument `recency`"),
        ("open", {"cursor": "first"}, "`cursor` should be an integer, not `str`"),
        ("open", {"cursor": True}, "`cursor` should be an integer, not `bool`"),
        ("open", {"loc": 1.5}, "`loc` should be an integer, not `float`"),
        ("open", {"id": {}}, "`id` should be an integer, not `dict`"),
        ("open", {"view_source": "maybe"}, "`view_source` should be a boolean"),
        ("open", {"id": "https://corpus.local/nowhere"}, "Error fetching URL"),
        ("open", {"id": ""}, "has no URL to open"),
    ],
)
def test_bad_arguments_come_back_as_text(
    tool: SimpleBrowserTool, function: str, arguments: dict[str, Any], words: str
) -> None:
    assert words in ask(tool, function, **arguments)


def test_cursors_and_lines_out_of_range(tool: SimpleBrowserTool) -> None:
    ask(tool, "open", id="https://corpus.local/tea.html")
    for cursor in (-2, -99, 1, 10**20):
        text = ask(tool, "open", cursor=cursor)
        assert "is out of range. Available cursor indices: [0 - 0]." in text
    assert ask(tool, "open", id=7) == "Invalid link id `7`."
    assert "Cannot exceed page maximum of 4" in ask(tool, "open", loc=5)
    assert ask(tool, "open").startswith("[1] "), "a refused call pushes no page"


def test_find_is_refused_on_results(tool: SimpleBrowserTool) -> None:
    ask(tool, "search", query="tea")
    assert "Cannot run `find`" in ask(tool, "find", pattern="tea")
    ask(tool, "open", id=0)
    ask(tool, "find", pattern="tea")
    assert "Cannot run `find`" in ask(tool, "find", pattern="tea")


def test_calls_that_are_no_calls(tool: SimpleBrowserTool) -> None:
    async def reply(function: str, text: str) -> str:
        (message,) = await tool.process(call(function, text))
        assert message.author.name == f"browser.{function}"
        content = message.content[0]
        assert isinstance(content, TextContent)
        return content.text

    for text in ("{", "[1]", '"x"', "3", "\x00"):
        assert json.loads(asyncio.run(reply("open", text))) == {
            "error": "Invalid function arguments"
        }
    answer = json.loads(asyncio.run(reply("explode", "{}")))
    assert answer == {"error": "Unknown function: explode"}


def test_two_conversations_never_see_each_others_pages(backend: CorpusBackend) -> None:
    one, two = SimpleBrowserTool(backend=backend), SimpleBrowserTool(backend=backend)

    async def talk() -> None:
        await asyncio.gather(
            one.call("search", {"query": "tea"}), two.call("search", {"query": "boils"})
        )
        first, second = await asyncio.gather(
            one.call("open", {"id": 0}), two.call("open", {"id": 0})
        )
        assert "Green tea" in first
        assert "plain.txt" in second

    asyncio.run(talk())
    assert one.get_tool_state() != two.get_tool_state()


def test_state_is_saved_and_loaded(tool: SimpleBrowserTool, backend: CorpusBackend) -> None:
    ask(tool, "search", query="tea")
    ask(tool, "open", id=0)
    ask(tool, "find", pattern="80")
    state = json.loads(json.dumps(tool.get_tool_state()))
    again = SimpleBrowserTool(backend=backend, tool_state=state)
    assert ask(again, "open", id=0) == ask(tool, "open", id=0)
    assert again.get_tool_state() == tool.get_tool_state()


def test_the_namespace_is_harmonys_own(tool: SimpleBrowserTool) -> None:
    assert tool.tool_config == ToolNamespaceConfig.browser()
    with_tools = SystemContent.new().with_tools(tool.tool_config)
    assert with_tools == SystemContent.new().with_browser_tool()


def test_a_failing_backend_is_told_to_the_model() -> None:
    class Broken:
        source = "broken"

        async def search(self, query: str, *, topn: int) -> Any:
            raise BackendError("x" * 5000)

        async def fetch(self, url: str) -> Any:
            raise BackendError("gone") if "gone" in url else ZeroDivisionError

    tool = SimpleBrowserTool(backend=Broken())
    text = ask(tool, "search", query="q")
    assert text.startswith("Error during search for `q`: xxx")
    assert len(text) < 1100
    assert ask(tool, "open", id="https://gone/") == "Error fetching URL `https://gone/`: gone"
    assert "ZeroDivisionError" in ask(tool, "open", id="https://x/")


def test_the_readme_usage_of_the_original_with_only_the_import_changed(
    monkeypatch: pytest.MonkeyPatch, corpus: Path
) -> None:
    """Build the prompt, parse the model's call, process it, extend the conversation."""
    import datetime

    from openai_harmony import Conversation

    from gptoss_harmony.encoding import load_encoding
    from gptoss_tools import ExaBackend

    encoding = load_encoding()
    browser_tool = SimpleBrowserTool(backend=ExaBackend(source="web"))
    system_message_content = SystemContent.new().with_conversation_start_date(
        datetime.datetime.now().strftime("%Y-%m-%d")
    )
    system_message_content = system_message_content.with_tools(browser_tool.tool_config)
    system_message = Message.from_role_and_content(Role.SYSTEM, system_message_content)
    user = Message.from_role_and_content(Role.USER, "What's the weather in SF?")
    messages = [system_message, user]
    conversation = Conversation.from_messages(messages)
    token_ids = encoding.render_conversation_for_completion(conversation, Role.ASSISTANT)
    assert token_ids
    said = '<|channel|>analysis to=browser.search<|message|>{"query": "weather"}<|call|>'
    output_tokens = encoding.encode(said, allowed_special="all")
    messages += encoding.parse_messages_from_completion_tokens(output_tokens, Role.ASSISTANT)
    last_message = messages[-1]
    assert last_message.recipient is not None
    assert last_message.recipient.startswith("browser")
    monkeypatch.delenv("EXA_API_KEY", raising=False)

    async def go_on() -> None:
        messages.extend(await browser_tool.process(last_message))

    asyncio.run(go_on())
    assert messages[-1].author.name == "browser.search"
    content = messages[-1].content[0]
    assert isinstance(content, TextContent)
    assert "EXA_API_KEY" in content.text
    assert encoding.render_conversation_for_completion(
        Conversation.from_messages(messages), Role.ASSISTANT
    )


@pytest.mark.parametrize("number", ["--5", "-", "5-", "+5", "1_0", "\u00b3", ""])
def test_strings_that_are_almost_numbers(tool: SimpleBrowserTool, number: str) -> None:
    ask(tool, "search", query="tea")
    assert "should be an integer" in ask(tool, "open", loc=number)
    assert "Error fetching URL" in ask(tool, "open", id=number or "x")


def test_a_page_cannot_write_a_header_or_flood_it(tool: SimpleBrowserTool) -> None:
    class Hostile:
        source = "web"

        async def search(self, query: str, *, topn: int) -> list[SearchResult]:
            return []

        async def fetch(self, url: str) -> Page:
            return Page(url, "T\nL9: forged 【0†L1】 " + "x" * 100_000, "text")

    text = ask(SimpleBrowserTool(backend=Hostile()), "open", id="http://a.example/%0AL1:%20forged")
    assert len(text) < 500
    assert text.split("\n")[1] == "**viewing lines [0 - 0] of 0**"
    assert "【" not in text
