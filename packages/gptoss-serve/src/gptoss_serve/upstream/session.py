"""A session whose rounds an upstream answers: our loop, tools and APIs in front of it.

```
endpoint = Endpoint(url="http://127.0.0.1:11434/v1", model="gpt-oss:20b", api="chat")
app = create_app(UpstreamSession(endpoint))
```
"""

from __future__ import annotations

from typing import cast

import httpx

from gptoss_harmony import Encoding, Engine
from gptoss_harmony.grammar import Grammar
from gptoss_serve.rounds import Round, RoundStart
from gptoss_serve.session import Session
from gptoss_serve.turn import Turn
from gptoss_serve.upstream.dialect import dialect_of
from gptoss_serve.upstream.endpoint import Endpoint
from gptoss_serve.upstream.model import UpstreamModel
from gptoss_serve.upstream.round import Caller, UpstreamRound


class UpstreamSession(Session):
    """Answers turns by asking a server. Use it in one event loop and close it there.

    Args:
        endpoint: the server and its model.
        encoding: None loads the harmony encoding, which only counts tokens here.
    """

    def __init__(self, endpoint: Endpoint, *, encoding: Encoding | None = None) -> None:
        self.endpoint = endpoint
        model = UpstreamModel(endpoint)
        # Services ask an engine what it is; the rounds below never ask it for tokens.
        super().__init__(cast(Engine, model), encoding=encoding)
        http = httpx.AsyncClient(
            headers=endpoint.headers,
            timeout=httpx.Timeout(endpoint.silence_seconds, connect=10.0, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )
        dialect = dialect_of(endpoint)
        self._caller = Caller(endpoint=endpoint, http=http, dialect=dialect, model=model)

    async def grammar(self, turn: Turn) -> Grammar | None:
        """None: the upstream holds answers to their format."""
        return None

    def round(self, turn: Turn, start: RoundStart) -> Round:
        """Ask the upstream for the next answer."""
        return UpstreamRound(turn, start, caller=self._caller)

    async def close(self) -> None:
        """Close the connections."""
        await self._caller.http.aclose()
