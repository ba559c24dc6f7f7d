"""`include_obfuscation`: deltas of one length, so that a wire-tapper cannot guess words by it."""

from __future__ import annotations

import secrets

from gptoss_serve.responses.parts import Json
from gptoss_serve.wire import packed

_BLOCK = 64  # bytes; a delta longer than a block is padded to the next multiple
_KEY = len(b',"obfuscation":""')


def padded(event: Json) -> Json:
    """A delta with random letters in `obfuscation`; other events as they are."""
    if not event["type"].endswith(".delta"):
        return event
    # The number of the event is padded for too: it grows by a digit now and then.
    length = len(packed(event)) + _KEY
    return {**event, "obfuscation": secrets.token_hex(_BLOCK)[: -length % _BLOCK]}
