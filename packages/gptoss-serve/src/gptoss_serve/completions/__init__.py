"""Chat Completions and plain completions."""
