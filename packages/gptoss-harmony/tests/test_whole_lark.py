"""The one-text grammar for engines elsewhere allows exactly what the constraint here allows."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.tokens import FIRST_SPECIAL, VOCABULARY_SIZE

llguidance = pytest.importorskip("llguidance")

from gptoss_harmony.grammar import (  # noqa: E402
    AnswerFormat,
    Grammar,
    JsonSchema,
    Lark,
    Regex,
    _tools,
)

CITY = JsonSchema(
    {"type": "object", "properties": {"city": {"enum": ["Lyon", "}{ %"]}}, "required": ["city"]}
)
SUM = Lark(
    'start: NUMBER ("+" NUMBER)+  // a } brace\n%import common.WS\n%ignore WS\nNUMBER: /[1-9]+/'
)
FORMATS = {
    "final": AnswerFormat(channels={"final": CITY}),
    "both channels": AnswerFormat(channels={"final": Regex(r"[a-z]+/\d{4}\}\""), "analysis": SUM}),
    "must call": AnswerFormat(
        functions={"f1": CITY, "final": SUM}, tool_choice="required", builtin_tools=["python"]
    ),
    "prefilled": AnswerFormat(functions={"f": CITY}, prefilled="functions.f"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_both_grammars_allow_the_same_tokens_all_along(name: str) -> None:
    format = FORMATS[name]
    encoding = load_encoding()
    constraint = Grammar(encoding, format).constraint()
    assert constraint.format is format
    other = _tools(encoding).matcher(format.whole_lark())
    assert not other.get_error()
    row = np.zeros(-(-VOCABULARY_SIZE // 32), np.int32)
    generator = random.Random(name)
    for _ in range(80):
        if constraint.done:
            break
        constraint.fill(row)
        assert row.tobytes() == other.compute_bitmask()[: row.nbytes]
        allowed = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist()
        markers = [token for token in allowed if token >= FIRST_SPECIAL]
        token = generator.choice(markers if markers and generator.random() < 0.7 else allowed)
        constraint.accept(token)
        assert other.consume_token(token)
