"""Between token ids and the text that Ollama speaks.

Ollama takes and gives text. With `raw` it puts nothing around a prompt and takes nothing out of an
answer, and the names of special tokens stand for the tokens, both ways:

```
<|start|>user<|message|>Hi<|end|><|start|>assistant          what is sent
<|channel|>  final  <|message|>  Hello                       what comes, a piece per token
```

Two things get lost. The token that ends an answer is never sent: it follows from the last header.
And a special token's name in what a user wrote would become the token: it is broken up on the way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gptoss_harmony import Encoding, StreamParser
from gptoss_harmony.errors import EngineError
from gptoss_harmony.tokens import (
    CALL,
    FIRST_SPECIAL,
    MESSAGE_ENDS,
    RETURN,
    START,
)

_MARKER = re.compile(r"<\|(?=\w+\|>)")
_BROKEN = "<\u200b|"  # with a space of no width, it reads the same and is no marker
# How an answer begins whose markers were dropped, channel name and all.
_BARE_CHANNEL = re.compile(r"(analysis|commentary|final)\b")
_NEXT = "<|end|><|start|>assistant"


def prompt_text(encoding: Encoding, tokens: Sequence[int]) -> str:
    """Write a prompt so that Ollama reads the same special tokens, and no others.

    Args:
        encoding: harmony's.
        tokens: ids of the vocabulary.
    """
    parts, ordinary = [], b""
    for token in tokens:
        if token < FIRST_SPECIAL:
            ordinary += encoding.token_bytes[token]
        else:
            parts += [_harmless(ordinary), encoding.token_bytes[token].decode()]
            ordinary = b""
    return "".join([*parts, _harmless(ordinary)])


def _harmless(text: bytes) -> str:
    return _MARKER.sub(_BROKEN, text.decode("utf-8", "replace"))


class AnswerText:
    """Turns the pieces of an answer into tokens.

    Args:
        encoding: harmony's.
        prompt: the ids that the answer continues.
    """

    def __init__(self, encoding: Encoding, prompt: Sequence[int]) -> None:
        self._encoding = encoding
        self._parser = StreamParser(encoding)
        self._begun = False
        self._channel = ""  # of a text that the server took apart
        starts = [index for index, token in enumerate(prompt) if token == START]
        tail = prompt[starts[-1] :] if starts else ()
        for token in tail:
            self._parser.process(token)
        between = not tail or tail[-1] in MESSAGE_ENDS
        self._in_header = not between and self._parser.current_header is None

    def read(self, piece: dict[str, Any]) -> list[int]:
        """Return the tokens of one line of the stream.

        Raises:
            EngineError: the server dropped harmony's markers.
        """
        tokens: list[int] = []
        if thinking := piece.get("thinking"):
            tokens += self._taken_apart("analysis", thinking)
        if response := piece.get("response"):
            if self._channel or (not self._begun and self._unmarked(response)):
                tokens += self._taken_apart("final", response)
            else:
                tokens += self._encoding.encode(response, allowed_special="all")
        self._begun |= bool(tokens)
        for token in tokens:
            self._parser.process(token)
        return tokens

    def end(self) -> int | None:
        """Return the token that ended the answer; None where it came as text."""
        header = self._parser.current_header
        if header is None:
            return None if self._parser.messages and self._begun else RETURN
        to_a_tool = header.recipient not in (None, "assistant", "user", "all")
        return CALL if to_a_tool else RETURN

    def _unmarked(self, text: str) -> bool:
        """Whether a first piece is no header although a header is due."""
        if not self._in_header or text.lstrip().startswith(("<|", "to=")) or not text.strip():
            return False
        if _BARE_CHANNEL.match(text):
            raise EngineError(
                f"Ollama left harmony's markers out of its answer, which begins with {text!r}: "
                "update Ollama to a release that knows gpt-oss, and pull the model again"
            )
        return True

    def _taken_apart(self, channel: str, text: str) -> list[int]:
        """Put back the header of a text that the server read as harmony, although told not to."""
        tokens = []
        if self._channel != channel:
            before = _NEXT if self._channel else ""
            header = f"{before}<|channel|>{channel}<|message|>"
            tokens = self._encoding.encode(header, allowed_special="all")
            self._channel = channel
        return [*tokens, *self._encoding.encode_text(text)]
