"""Exa: search and page contents from exa.ai, through its own SDK. Needs a key."""

from __future__ import annotations

from typing import Any

from gptoss_harmony.errors import NotInstalled
from gptoss_tools.browser.backends.document import text_page
from gptoss_tools.browser.backends.keys import api_key
from gptoss_tools.browser.backends.protocol import SearchResult
from gptoss_tools.browser.html import html_page
from gptoss_tools.browser.page import Page
from gptoss_tools.errors import BackendError

VIEW_SOURCE = "view-source:"
BASE_URL = "https://api.exa.ai"
_SECONDS = 30.0


class ExaBackend:
    """Search and pages from Exa.

    Args:
        source: what the backend is called.
        api_key: None reads the environment variable EXA_API_KEY when the first call comes.
        base_url: where the service is.
    """

    def __init__(
        self, source: str = "web", *, api_key: str | None = None, base_url: str = BASE_URL
    ) -> None:
        self.source = source
        self._api_key = api_key
        self._base_url = base_url
        self._client: Any = None

    async def search(self, query: str, *, topn: int) -> list[SearchResult]:
        """See `Backend.search`."""
        found = await self._ask("search", query, num_results=topn, contents={"summary": True})
        return [
            SearchResult(
                title=hit.title or hit.url,
                url=hit.url,
                summary=getattr(hit, "summary", None) or "",
            )
            for hit in found.results
        ]

    async def fetch(self, url: str) -> Page:
        """See `Backend.fetch`."""
        target = url.removeprefix(VIEW_SOURCE)
        found = await self._ask("get_contents", [target], text={"include_html_tags": True})
        if not found.results or not getattr(found.results[0], "text", None):
            raise BackendError("Exa has no contents for it")
        hit = found.results[0]
        if target != url:
            return text_page(hit.text, url, title=url)
        return html_page(hit.text, target, title=hit.title or "")

    async def _ask(self, method: str, /, *arguments: Any, **options: Any) -> Any:
        if self._client is None:
            self._client = self._connect()
        try:
            return await getattr(self._client, method)(*arguments, **options)
        # The SDK raises ValueError for what the service refuses, and its HTTP library's errors.
        except Exception as error:
            raise BackendError(f"Exa: {error or type(error).__name__}") from error

    def _connect(self) -> Any:
        key = api_key(self._api_key, "EXA_API_KEY", "Exa")
        try:
            from exa_py import AsyncExa
        except ImportError as error:
            raise NotInstalled(
                "the Exa backend needs an extra; get it with: pip install 'gptoss-tools[exa]'"
            ) from error
        return AsyncExa(key, self._base_url, timeout=_SECONDS)
