"""The three tools that gpt-oss was trained with, for any agent."""
