"""You.com: search and page contents over its HTTP interface. Needs a key."""

from __future__ import annotations

from typing import Any

import httpx

from gptoss_tools.browser.backends.document import text_page
from gptoss_tools.browser.backends.keys import api_key
from gptoss_tools.browser.backends.protocol import SearchResult
from gptoss_tools.browser.html import html_page
from gptoss_tools.browser.page import Page
from gptoss_tools.errors import BackendError

VIEW_SOURCE = "view-source:"
BASE_URL = "https://api.ydc-index.io"
_SECONDS = 30.0
_MAX_ERROR = 500


class YouComBackend:
    """Search and pages from You.com.

    Args:
        source: what the backend is called.
        api_key: None reads the environment variable YDC_API_KEY at every call.
        base_url: where the service is.
    """

    def __init__(
        self, source: str = "web", *, api_key: str | None = None, base_url: str = BASE_URL
    ) -> None:
        self.source = source
        self._api_key = api_key
        self._base_url = base_url.rstrip("/")

    async def search(self, query: str, *, topn: int) -> list[SearchResult]:
        """See `Backend.search`; web results come before news."""
        data = await self._ask("GET", "/v1/search", params={"query": query, "count": topn})
        results = data.get("results") or {}
        hits = [*(results.get("web") or []), *(results.get("news") or [])]
        return [
            SearchResult(
                title=str(hit.get("title") or hit["url"]),
                url=str(hit["url"]),
                summary=_summary(hit),
            )
            for hit in hits
            if hit.get("url")
        ][:topn]

    async def fetch(self, url: str) -> Page:
        """See `Backend.fetch`."""
        target = url.removeprefix(VIEW_SOURCE)
        body = {"urls": [target], "livecrawl_formats": "html"}
        data = await self._ask("POST", "/v1/contents", json=body)
        entry = data[0] if isinstance(data, list) and data else {}
        if not entry.get("html"):
            raise BackendError("You.com has no contents for it")
        if target != url:
            return text_page(entry["html"], url, title=url)
        return html_page(entry["html"], target, title=str(entry.get("title") or ""))

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        key = api_key(self._api_key, "YDC_API_KEY", "You.com")
        try:
            async with httpx.AsyncClient(timeout=_SECONDS, headers={"X-API-Key": key}) as client:
                response = await client.request(method, self._base_url + path, **options)
        except httpx.HTTPError as error:
            raise BackendError(f"You.com does not answer: {error!r}") from error
        if response.status_code != 200:
            raise BackendError(
                f"You.com answered {response.status_code}: {response.text[:_MAX_ERROR]}"
            )
        try:
            return response.json()
        except ValueError as error:
            raise BackendError("You.com answered something that is not JSON") from error


def _summary(hit: dict[str, Any]) -> str:
    snippets = hit.get("snippets")
    return " ".join(map(str, snippets)) if snippets else str(hit.get("description") or "")
