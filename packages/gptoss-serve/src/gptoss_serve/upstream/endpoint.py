"""Where the upstream is and how to speak to it.

```
Endpoint(url="http://127.0.0.1:11434/v1", model="gpt-oss:20b", api="chat")
```
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from gptoss_harmony.errors import UsageError

UpstreamApi = Literal["responses", "chat"]

# What is said of a model whose server does not say how much it reads.
UNKNOWN_CONTEXT = 131_072
_PATHS = {"responses": "/responses", "chat": "/chat/completions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One model of one server.

    Attributes:
        url: the base, which usually ends in `/v1`.
        model: what the server calls the model.
        api: which of its APIs is used.
        key: sent as a bearer key; never shown.
        context_length: tokens that the model reads, as far as the server says.
        silence_seconds: how long the server may send nothing.
        retries: further attempts where the server was busy or not there and had sent nothing.
        backoff_seconds: the wait before the first further attempt; it doubles each time.
    """

    url: str
    model: str
    api: UpstreamApi
    key: str | None = field(default=None, repr=False)
    context_length: int = UNKNOWN_CONTEXT
    silence_seconds: float = 600.0
    retries: int = 2
    backoff_seconds: float = 0.5

    def __post_init__(self) -> None:
        """Refuse amounts that make no sense, naming them."""
        if self.silence_seconds <= 0:
            raise UsageError(f"the upstream's timeout must be > 0, not {self.silence_seconds}")
        if self.retries < 0:
            raise UsageError(f"the upstream's retries must be >= 0, not {self.retries}")

    @property
    def post_url(self) -> str:
        """Where requests go."""
        return self.url + _PATHS[self.api]

    @property
    def shown(self) -> str:
        """The address for messages: without a user and password."""
        return shown_url(self.url)

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return key_headers(self.key)


def base_url(given: str) -> str:
    """The base of the APIs from what a user writes.

    A bare host gets `/v1`; the path of one API is taken off.

    Raises:
        UsageError: not the address of a web server.
    """
    parts = urlsplit(given.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UsageError(
            f"--upstream is the base URL of a server, such as http://127.0.0.1:8001/v1, "
            f"not {shown_url(given)!r}"
        )
    path = parts.path.rstrip("/")
    for ending in _PATHS.values():
        path = path.removesuffix(ending)
    return urlunsplit((parts.scheme, parts.netloc, path or "/v1", "", ""))


def shown_url(url: str) -> str:
    """A URL without a user, a password and a query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def key_headers(key: str | None) -> dict[str, str]:
    """The header that carries a bearer key."""
    return {"authorization": f"Bearer {key}"} if key else {}
