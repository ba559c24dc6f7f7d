"""The special tokens of harmony: which id is which marker.

A message is `<|start|>` header `<|message|>` text and one of three ends: `<|end|>` (more messages
follow), `<|return|>` (the answer is complete) and `<|call|>` (a tool must run now).

```
>>> SPECIAL_TOKENS["<|return|>"], special_token_text(200013)
(200002, '<|reserved_200013|>')
```
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

VOCABULARY_SIZE: Final = 201_088  # rows of the embedding and unembedding matrices
FIRST_SPECIAL: Final = 199_998  # ordinary tokens are 0 .. FIRST_SPECIAL - 1
LAST_SPECIAL: Final = 201_088  # the tokenizer names one id more than the model has rows

START_OF_TEXT: Final = 199_998
END_OF_TEXT: Final = 199_999
RETURN: Final = 200_002
CONSTRAIN: Final = 200_003
CHANNEL: Final = 200_005
START: Final = 200_006
END: Final = 200_007
MESSAGE: Final = 200_008
CALL: Final = 200_012

# Every marker that has a name of its own; all other special ids are `<|reserved_ID|>`.
SPECIAL_TOKENS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "<|startoftext|>": START_OF_TEXT,
        "<|endoftext|>": END_OF_TEXT,
        "<|return|>": RETURN,
        "<|constrain|>": CONSTRAIN,
        "<|channel|>": CHANNEL,
        "<|start|>": START,
        "<|end|>": END,
        "<|message|>": MESSAGE,
        "<|call|>": CALL,
    }
)

_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {token: name for name, token in SPECIAL_TOKENS.items()}
)

MESSAGE_ENDS: Final = frozenset({RETURN, CALL, END})
ASSISTANT_ACTION_ENDS: Final = frozenset({RETURN, CALL})


def special_token_text(token: int) -> str:
    """Return the text of a special id, for example `<|start|>`.

    Raises:
        ValueError: the id is not special.
    """
    if not FIRST_SPECIAL <= token <= LAST_SPECIAL:
        raise ValueError(f"{token} is not a special token ({FIRST_SPECIAL}..{LAST_SPECIAL})")
    return _NAMES.get(token, f"<|reserved_{token}|>")


def special_token_id(text: str) -> int | None:
    """Return the id of `<|start|>`, `<|reserved_200013|>` and so on; None for any other text."""
    if (token := SPECIAL_TOKENS.get(text)) is not None:
        return token
    digits = text.removeprefix("<|reserved_").removesuffix("|>")
    if len(digits) != 6 or not digits.isascii() or not digits.isdigit():
        return None
    token = int(digits)
    known = FIRST_SPECIAL <= token <= LAST_SPECIAL
    return token if known and special_token_text(token) == text else None
