"""browser as a tool: `search`, `open` and `find` over any backend, one object per conversation.

```
tool = SimpleBrowserTool(backend=CorpusBackend("docs.db"))
system = system.with_tools(tool.tool_config)
messages = await tool.process(call)          # a call to `browser.open`
text, citations = tool.cite("As shown 【0†L3】.")
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from openai_harmony import Message, ToolNamespaceConfig

from gptoss_harmony.tool import ToolReply
from gptoss_tools.browser.arguments import FUNCTIONS, check_arguments, parse_arguments
from gptoss_tools.browser.backends.protocol import Backend, SearchResult
from gptoss_tools.browser.cite import CitationNormalizer, UrlCitation
from gptoss_tools.browser.display import VIEW_TOKENS, display, shortened
from gptoss_tools.browser.find import find_page
from gptoss_tools.browser.links import LinkTable, page_characters
from gptoss_tools.browser.page import Page
from gptoss_tools.browser.state import BrowserState, CallError
from gptoss_tools.reply import answer, call_text, single_reply

VIEW_SOURCE = "view-source:"
_CONTEXT_LINES = 4  # shown above the line that a find result leads to


class SimpleBrowserTool:
    """A browser without pictures, for one conversation.

    Args:
        backend: where pages and search results come from.
        max_search_results: most results of a search, whatever the model asks for.
        view_tokens: size of the window on a page.
        tool_state: what `get_tool_state` returned, to go on with a conversation.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_search_results: int = 20,
        view_tokens: int = VIEW_TOKENS,
        tool_state: Mapping[str, Any] | None = None,
    ) -> None:
        self.backend = backend
        self._max_search_results = max_search_results
        self._view_tokens = view_tokens
        self._state = BrowserState() if tool_state is None else BrowserState.from_json(tool_state)

    @property
    def name(self) -> str:
        """`browser`."""
        return "browser"

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        """Harmony's own namespace, which the model was trained with."""
        return ToolNamespaceConfig.browser()

    def instruction(self) -> str:
        """Nothing beyond the namespace."""
        return ""

    def get_tool_state(self) -> dict[str, Any]:
        """The conversation's pages as plain data."""
        return self._state.to_json()

    def process(self, message: Message) -> ToolReply:
        """Serve one call; whatever goes wrong comes back as text."""
        return single_reply(self._answer(message))

    async def _answer(self, message: Message) -> Message:
        recipient = message.recipient or self.name
        function = recipient.removeprefix(f"{self.name}.")
        given = parse_arguments(call_text(message))
        if given is None:
            return answer(message, _error("Invalid function arguments"), name=recipient)
        if function not in FUNCTIONS:
            return answer(message, _error(f"Unknown function: {function}"), name=recipient)
        return answer(message, await self.call(function, given), name=f"{self.name}.{function}")

    async def call(self, function: str, arguments: Mapping[str, Any]) -> str:
        """Serve a call without messages: the display, or what went wrong."""
        try:
            checked = check_arguments(function, arguments)
            if function == "search":
                return await self._search(checked["query"], checked["topn"])
            if function == "open":
                return await self._open(checked)
            return self._find(checked["pattern"], checked["cursor"])
        except CallError as error:
            return str(error)

    async def _search(self, query: str, topn: int) -> str:
        count = max(1, min(topn, self._max_search_results))
        try:
            results = await self.backend.search(query, topn=count)
        except Exception as error:  # a backend is anybody's code; its failures are the model's news
            raise CallError(
                f"Error during search for `{shortened(query)}`: {_words(error)}"
            ) from error
        return self._show(self._state.add(results_page(query, results[:count])))

    async def _open(self, checked: Mapping[str, Any]) -> str:
        number, loc = await self._target(checked)
        wanted = checked["loc"] if checked["loc"] >= 0 else loc
        return self._show(number, loc=wanted, num_lines=checked["num_lines"])

    async def _target(self, checked: Mapping[str, Any]) -> tuple[int, int]:
        """Identity of the page to show and the line it wants to be shown from."""
        identifier, view_source = checked["id"], checked["view_source"]
        if isinstance(identifier, str):
            return await self._fetch(identifier, view_source=view_source), 0
        current = self._state.number_at(checked["cursor"])
        page = self._state.pages[current]
        if identifier < 0:
            if not view_source:
                return current, 0
            return await self._fetch(page.url, view_source=True), 0
        link = page.links.get(identifier)
        if link is None:
            raise CallError(f"Invalid link id `{identifier}`.")
        if link.page is not None and not view_source:
            line = link.line or 0
            return link.page, line - _CONTEXT_LINES if line > _CONTEXT_LINES else line
        known = None if view_source else self._state.number_of_url(link.url)
        if known is not None:
            return known, 0
        return await self._fetch(link.url, view_source=view_source), 0

    async def _fetch(self, url: str, *, view_source: bool) -> int:
        if not url.removeprefix(VIEW_SOURCE):
            raise CallError("This page has no URL to open; open one of its links.")
        if view_source and not url.startswith(VIEW_SOURCE):
            url = VIEW_SOURCE + url
        try:
            page = await self.backend.fetch(url)
        except Exception as error:
            raise CallError(f"Error fetching URL `{shortened(url)}`: {_words(error)}") from error
        return self._state.add(page)

    def _find(self, pattern: str, cursor: int) -> str:
        number = self._state.number_at(cursor)
        page = self._state.pages[number]
        if page.kind != "page":
            raise CallError("Cannot run `find` on a page of search or find results.")
        return self._show(self._state.add(find_page(page, number, pattern.lower())))

    def _show(self, number: int, *, loc: int = 0, num_lines: int = -1) -> str:
        """Push a page and display it; nothing is pushed where the line does not exist."""
        page = self._state.pages[number]
        if loc >= len(page.lines):
            raise CallError(
                f"Invalid location parameter: `{loc}`. "
                f"Cannot exceed page maximum of {len(page.lines) - 1}."
            )
        cursor = self._state.push(number)
        return display(page, cursor, loc=loc, num_lines=num_lines, view_tokens=self._view_tokens)

    def citations(self) -> CitationNormalizer:
        """Rewrites the citations of an answer that streams."""
        return CitationNormalizer(self._state.source_url)

    def cite(self, text: str) -> tuple[str, list[UrlCitation]]:
        """Rewrite the citations of a whole answer."""
        normalizer = self.citations()
        start, citations = normalizer.feed(text)
        end, more = normalizer.finish()
        return start + end, citations + more

    def normalize_citations(
        self, old_content: str, hide_partial_citations: bool = False
    ) -> tuple[str, list[dict[str, Any]], bool]:
        """`cite` in the shape that callers of the original tool expect.

        Returns:
            The new text, the annotations as dictionaries, and whether a bracket is unfinished.
        """
        normalizer = self.citations()
        text, citations = normalizer.feed(old_content)
        partial = normalizer.holds_back
        if not hide_partial_citations:
            rest, more = normalizer.finish()
            text, citations = text + rest, citations + more
        return text, [citation.to_json() for citation in citations], partial


def results_page(query: str, results: list[SearchResult]) -> Page:
    """Search results as a page: a list of links, each with its summary."""
    table = LinkTable("")
    items = [
        f"  * {table.render(result.url, page_characters(result.title) or result.url)} "
        f"{page_characters(' '.join(result.summary.split()))}".rstrip()
        for result in results
    ]
    text = "\n".join(["", "URL: ", "# Search Results", "", *(items or ["No results."])])
    return Page("", query, text, table.links, kind="search")


def _words(error: Exception) -> str:
    return shortened(str(error) or repr(error))


def _error(text: str) -> str:
    return json.dumps({"error": text})
