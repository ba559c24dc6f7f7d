"""Remote MCP servers as tools of a turn."""
