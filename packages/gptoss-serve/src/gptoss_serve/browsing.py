"""Our browser behind `web_search`: what the API lets clients ask of it, and what it tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gptoss_serve.toolbox import ToolSetup
from gptoss_tools import SimpleBrowserTool
from gptoss_tools.browser.backends.protocol import Backend, SearchResult
from gptoss_tools.browser.page import Page
from gptoss_tools.errors import BackendError

# Tokens of a window on a page, and results of a search.
_SIZES: Mapping[str, tuple[int, int]] = {"low": (512, 8), "medium": (1024, 20), "high": (2048, 20)}
_MOST_ASKED = 50  # results to choose from where only some domains are allowed


class ServedBrowser(SimpleBrowserTool):
    """A browser for one conversation, as one request wants it.

    Args:
        backend: where pages come from.
        setup: the pages of earlier turns, and the fields of the request's `web_search`.
    """

    def __init__(self, backend: Backend, setup: ToolSetup) -> None:
        options = setup.options
        domains = (options.get("filters") or {}).get("allowed_domains")
        self._found: list[str] = []
        watched = WatchedBackend(backend, self._found, domains=domains)
        tokens, results = _SIZES[options.get("search_context_size", "medium")]
        super().__init__(
            watched, max_search_results=results, view_tokens=tokens, tool_state=setup.state
        )
        self._where = _place(options.get("user_location") or {})
        self._report: dict[str, Any] = {}

    def instruction(self) -> str:
        """Where the user is, if the client says so."""
        return self._where

    def report(self) -> Mapping[str, Any]:
        """Of the last call: `url` of its page, `sources` of its search, `failed`."""
        return self._report

    async def call(self, function: str, arguments: Mapping[str, Any]) -> str:
        """Serve a call, and note what came of it."""
        self._found.clear()
        seen = len(self._state.stack)
        text = await super().call(function, arguments)
        self._report = {"failed": len(self._state.stack) == seen}
        if not self._report["failed"]:
            self._report["url"] = self._state.source_url(len(self._state.stack) - 1)
            self._report["sources"] = list(dict.fromkeys(self._found))
        return text


class WatchedBackend:
    """A backend that stays within some domains and notes what a search found.

    Args:
        backend: the real one.
        found: gets the addresses of results.
        domains: with their subdomains; None allows all.
    """

    def __init__(self, backend: Backend, found: list[str], *, domains: list[str] | None) -> None:
        self._backend = backend
        self._found = found
        self._domains = None if domains is None else [_bare(domain) for domain in domains]
        self.source = backend.source

    async def search(self, query: str, *, topn: int) -> list[SearchResult]:
        """The best hits that are allowed."""
        if self._domains is None:
            results = await self._backend.search(query, topn=topn)
        else:
            every = await self._backend.search(query, topn=_MOST_ASKED)
            results = [result for result in every if self._allows(result.url)][:topn]
        self._found += [result.url for result in results]
        return results

    async def fetch(self, url: str) -> Page:
        """A page of an allowed domain, also after redirects."""
        self._check(url.removeprefix("view-source:"))
        page = await self._backend.fetch(url)
        self._check(page.url.removeprefix("view-source:"))
        return page

    def _check(self, url: str) -> None:
        if self._domains is not None and not self._allows(url):
            allowed = ", ".join(self._domains)
            raise BackendError(f"only pages of these domains may be opened: {allowed}")

    def _allows(self, url: str) -> bool:
        try:
            host = urlsplit(url if "://" in url else f"//{url}").hostname or ""
        except ValueError:
            return False
        host = host.rstrip(".").lower()
        return any(host == d or host.endswith(f".{d}") for d in self._domains or ())


def _bare(domain: str) -> str:
    """A domain as clients write it, without scheme, path and dots around it."""
    without_scheme = domain.rpartition("://")[2]
    return without_scheme.partition("/")[0].lower().strip(".")


def _place(location: Mapping[str, Any]) -> str:
    parts = [location.get(name) for name in ("city", "region", "country")]
    place = ", ".join(str(part) for part in parts if part)
    zone = location.get("timezone")
    words = [f"in {place}"] if place else []
    words += [f"in the time zone {zone}"] if zone else []
    return f"The user is approximately {' and '.join(words)}. Search accordingly." if words else ""
