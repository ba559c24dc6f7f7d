"""Where the browser gets pages and search results: one small protocol, four implementations."""
