"""What an operator decides about a server, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gptoss_harmony.errors import UsageError
from gptoss_serve.mcp_client.access import McpAccess

ReasoningMode = Literal["text", "summary", "spec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a server behaves.

    Attributes:
        reasoning: names of reasoning events: `text` as Codex and OpenAI's SDKs read them,
            `summary` as Ollama writes them, `spec` as Open Responses does.
        reasoning_content: also write thoughts of Chat Completions to `reasoning_content`.
        keys: accepted bearer keys; () accepts everybody.
        origins: web origins that browsers may call from (CORS); () none.
        max_body_bytes: larger requests get 413.
        max_depth: JSON nested deeper gets 400.
        max_running: answers at once.
        max_waiting: requests that may wait.
        max_seconds: longest answer; None any.
        max_tool_calls: most calls of our tools in one answer.
        mcp: which MCP servers clients may have us call.
        mcp_seconds: longest wait for any one answer of an MCP server.
        keep_alive_seconds: silence after which a stream gets a comment.
        client_seconds: how long a client may take to send its request, or to take the next piece
            of an answer, before its connection is closed.
        drain_seconds: how long a shutdown waits for running answers.
        log_prompts: write the bodies of requests into the access log, and prompts into traces.
    """

    reasoning: ReasoningMode = "text"
    reasoning_content: bool = False
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body_bytes: int = 16 * 1024 * 1024
    max_depth: int = 100
    max_running: int = 64
    max_waiting: int = 256
    max_seconds: float | None = None
    max_tool_calls: int = 64
    mcp: McpAccess = field(default_factory=McpAccess)
    mcp_seconds: float = 60.0
    keep_alive_seconds: float = 15.0
    client_seconds: float = 60.0
    drain_seconds: float = 30.0
    log_prompts: bool = False

    def __post_init__(self) -> None:
        """Refuse keys and amounts that make no sense, naming them."""
        if not all(
            key and key.isascii() and key.isprintable() and " " not in key for key in self.keys
        ):
            raise UsageError(
                "an API key is empty or holds blanks or letters beyond ASCII, which no client can "
                "send; give another with --api-key or GPTOSS_API_KEY"
            )
        positive = ("max_body_bytes", "max_depth", "max_running", "keep_alive_seconds")
        for name in (*positive, "client_seconds", "mcp_seconds"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be > 0, not {getattr(self, name)}")
        for name in ("max_waiting", "max_tool_calls", "drain_seconds"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be >= 0, not {getattr(self, name)}")
