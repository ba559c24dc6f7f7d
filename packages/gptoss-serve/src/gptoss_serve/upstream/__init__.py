"""Our tools and APIs in front of any server of the Responses API or of Chat Completions."""
