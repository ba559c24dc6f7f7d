"""What stops under a schema is valid, what is cut is a valid beginning, at temperature 1.

`GPTOSS_SCHEMAS=300 pytest -s packages/gptoss-serve/tests/structured/test_gate.py` is the full size;
it prints how many answers stopped.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gptoss_harmony import (
    Engine,
    Sampling,
    developer_message,
    load_encoding,
    system_message,
    user_message,
)
from gptoss_harmony import tokens as special
from gptoss_harmony.grammar import AnswerFormat, Grammar, JsonSchema
from gptoss_harmony.plugins import open_engine
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config
from gptoss_harmony.testing import require
from gptoss_serve import create_app

Json = dict[str, Any]

pytestmark = pytest.mark.slow

ENCODING = load_encoding()
WORDS = -(-special.VOCABULARY_SIZE // 32)
FULL = os.environ.get("GPTOSS_SCHEMAS")
PROMPT = "Make one up."


def engine_for(checkpoint: str) -> Iterator[Engine]:
    require(importlib.util.find_spec("gptoss_core") is not None, "gptoss-core is not installed")
    engine = open_engine("torch", checkpoint, device="cpu")
    yield engine
    engine.close()


@pytest.fixture
def random_weights(tmp_path: Path) -> Iterator[Engine]:
    yield from engine_for(str(random_checkpoint(tmp_path / "original", tiny_config(), seed=1)))


@pytest.fixture
def nano() -> Iterator[Engine]:
    yield from engine_for("nano")


def in_final_channel(schema: Json) -> Grammar:
    return Grammar(
        ENCODING, AnswerFormat(channels={"final": JsonSchema(schema)}, prefilled="final")
    )


def completed(schema: Json, beginning: list[int]) -> str:
    """A beginning, which must be allowed, with the shortest end there is."""
    grammar = in_final_channel(schema)
    probe = grammar.constraint()
    for token in beginning:
        probe.accept(token)
    constraint = grammar.constraint(budget=len(beginning) + probe.tokens_to_end(exact=True))
    written = list(beginning)
    for token in beginning:
        constraint.accept(token)
    while not constraint.done:
        row = np.zeros(WORDS, np.int32)
        constraint.fill(row)
        allowed = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
        written.append(int(allowed[0]))
        constraint.accept(written[-1])
    return ENCODING.decode(written[:-1])


def test_random_weights_obey_in_the_final_channel(
    random_weights: Engine,
    make_schemas: Callable[[int], list[Json]],
    judged: Callable[[str, Json], None],
) -> None:
    schemas = make_schemas(int(FULL or 32))
    conversation = [system_message(), developer_message("Be brief."), user_message(PROMPT)]
    prompt = [*ENCODING.render_prompt(conversation).tokens]
    prompt += ENCODING.encode("<|channel|>final<|message|>", allowed_special="all")

    def answer(case: tuple[int, Json]) -> str:
        number, schema = case
        grammar = in_final_channel(schema)
        cut = number % 8 == 7  # without a budget the constraint lets an answer be cut
        most = 12 if cut else 160
        sampling = Sampling(max_tokens=most, temperature=1.0, seed=number)
        constraint = grammar.constraint(budget=None if cut else most)
        outputs = list(random_weights.generate(prompt, sampling, constraint=constraint))
        tokens = [output.token for output in outputs if output.token is not None]
        if outputs[-1].finish_reason == "stop":
            assert tokens[-1] == special.RETURN
            judged(ENCODING.decode(tokens[:-1]), schema)
        else:
            assert outputs[-1].finish_reason == "length"
            judged(completed(schema, tokens), schema)
        return f"{'cut ' if cut else ''}{outputs[-1].finish_reason}"

    with ThreadPoolExecutor(16) as pool:
        ends = Counter(pool.map(answer, enumerate(schemas)))
    sys.stdout.write(f"random weights, {len(schemas)} schemas: {dict(ends)}\n")
    assert ends["stop"] >= 0.95 * (ends["stop"] + ends["length"])
    assert ends["cut length"]


def test_nano_obeys_through_the_responses_api(
    nano: Engine,
    make_schemas: Callable[[int], list[Json]],
    judged: Callable[[str, Json], None],
) -> None:
    schemas = make_schemas(int(FULL or 5))
    ends: Counter[str] = Counter()

    async def answer(client: httpx.AsyncClient, number: int, schema: Json) -> None:
        cut = number % 16 == 3
        body = {
            "input": PROMPT,
            "text": {
                "format": {"type": "json_schema", "name": "it", "schema": schema, "strict": True}
            },
            "temperature": 1.0,
            "seed": number,
            "max_output_tokens": 16 if cut else 300,
            "store": False,
        }
        response = await client.post("/v1/responses", json=body)
        assert response.status_code == 200, (number, response.text)
        given = response.json()
        texts = [
            part["text"]
            for item in given["output"]
            if item["type"] == "message" and item.get("phase") != "commentary"
            for part in item["content"]
        ]
        ends[f"{'cut ' if cut else ''}{given['status']}"] += 1
        if given["status"] == "completed":
            judged(texts[-1], schema)
            return
        assert given["status"] == "incomplete", given
        assert given["incomplete_details"]["reason"] == "max_output_tokens"
        for text in texts:
            whole_letters = re.sub("\ufffd+$", "", text)
            judged(completed(schema, ENCODING.encode_text(whole_letters)), schema)

    async def all_of_them() -> None:
        transport = httpx.ASGITransport(create_app(nano))
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://x", timeout=None) as client,
            asyncio.TaskGroup() as group,
        ):
            for number, schema in enumerate(schemas):
                group.create_task(answer(client, number, schema))

    asyncio.run(all_of_them())
    sys.stdout.write(f"nano, {len(schemas)} schemas: {dict(ends)}\n")
    assert ends["completed"] >= 0.95 * (ends["completed"] + ends["incomplete"])
