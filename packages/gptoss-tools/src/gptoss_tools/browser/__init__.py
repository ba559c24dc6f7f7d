"""The browser: pages, their text, links and citations, over any backend."""
