"""Every family asks what can be answered, and gives the right answer."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from recipe.episode import Episode, plain
from recipe.mixture import TASKS
from recipe.words import Words

from gptoss_harmony.encoding import load_encoding

COUNT = 60
KINDS = {"string": str, "number": (int, float), "integer": int, "boolean": bool, "array": list}


@pytest.fixture(scope="module")
def words() -> Words:
    return Words(load_encoding().encode_text)


def episodes(task: str, words: Words) -> list[Episode]:
    make = TASKS[task][0]
    return [
        make(random.Random(f"{task} {i}"), words, ("low", "medium", "high")[i % 3])
        for i in range(COUNT)
    ]


def admits(schema: dict[str, Any], item: Any) -> bool:
    if schema["type"] == "object":
        return all(admits(schema["properties"][n], v) for n, v in item.items())
    if "enum" in schema:
        return item in schema["enum"]
    if schema["type"] == "array":
        return all(admits(schema["items"], v) for v in item)
    return isinstance(item, KINDS[schema["type"]])


@pytest.mark.parametrize("task", ["functions"])
def test_calls_fit_their_schema(task: str, words: Words) -> None:
    for episode in episodes(task, words):
        call = episode.turns[-1].completions[0].messages[-1]
        (tool,) = [t for t in episode.tools if f"functions.{t['name']}" == call.recipient]
        arguments = json.loads(call.plain)
        schema = tool["parameters"] or {"properties": {}, "required": []}
        assert set(schema["required"]) <= set(arguments) <= set(schema["properties"])
        assert all(admits(schema["properties"][n], v) for n, v in arguments.items())


def test_words_of_a_call_stand_in_the_question(words: Words) -> None:
    for episode in episodes("functions", words):
        user = plain(episode.turns[-1].user)
        for item in re.findall(r'"([^"]*)"', episode.turns[-1].completions[0].messages[-1].plain):
            assert item in user or item.replace("_", " ") in user


def test_extracted_values_stand_in_the_text(words: Words) -> None:
    for episode in episodes("extract", words):
        turn = episode.turns[-1]
        data = json.loads(turn.completions[0].messages[-1].plain)
        for schema in (form["schema"] for form in episode.formats):
            assert list(data) == schema["required"]
        assert all(str(item) in plain(turn.user) for item in data.values())


def test_sums_are_right(words: Words) -> None:
    for episode in episodes("python", words):
        first, last = episode.turns[-1].completions
        code = first.messages[-1].plain
        left, operator, right = (episode.about[k] for k in ("left", "operator", "right"))
        assert code == f"print({left} {operator} {right})"
        assert first.reply is not None
        answer = last.messages[-1].plain
        if "ZeroDivisionError" in first.reply.plain:
            assert "division by zero" in answer
        else:
            printed = first.reply.plain.strip()
            assert float(printed) == eval(code[6:-1], {"__builtins__": {}})
            assert answer == f"{left} {operator} {right} = {printed}."


def test_a_citation_points_at_the_line_of_the_fact(words: Words) -> None:
    for episode in episodes("browse", words):
        *steps, last = episode.turns[-1].completions
        text, cursor, line = re.fullmatch(
            r"(.*) 【(\d+)†L(\d+)】", last.messages[-1].plain
        ).groups()  # type: ignore[union-attr]
        shown = steps[int(cursor)].reply.plain  # type: ignore[union-attr]
        assert shown.startswith(f"[{cursor}] ")
        assert f"\nL{line}: {text}" in shown
        first, stop = map(int, re.search(r"lines \[(\d+) - (\d+)\]", shown).groups())  # type: ignore[union-attr]
        assert len(re.findall(r"^L\d+: ", shown, re.MULTILINE)) == stop - first + 1


def test_the_opened_link_is_about_the_entity(words: Words) -> None:
    for episode in episodes("browse", words):
        search, opened = episode.turns[-1].completions[:2]
        number = json.loads(opened.messages[-1].plain)["id"]
        title = re.search(rf"【{number}†(.*?)†", search.reply.plain)[1]  # type: ignore[index,union-attr]
        assert episode.about["fact"].entity in title


def test_a_patch_takes_lines_that_are_there(words: Words) -> None:
    for episode in episodes("patch", words):
        patch = episode.turns[-1].completions[0].messages[-1].plain.split("\n")
        assert patch[0] == "*** Begin Patch"
        assert patch[1] == f"*** Update File: {episode.about['path']}"
        assert patch[2] == "@@"
        assert patch[-1] == "*** End Patch"
        shown = plain(episode.turns[-1].user).split("\n")
        for line in patch[3:-1]:
            assert line[0] in " -+"
            if line[0] != "+":
                assert line[1:] in shown


@pytest.mark.parametrize("task", TASKS)
def test_more_effort_is_more_thought(task: str, words: Words) -> None:
    lengths: dict[str, list[int]] = {"low": [], "medium": [], "high": []}
    for episode in episodes(task, words):
        thought = episode.turns[-1].completions[0].messages[:-1]
        lengths[episode.effort].append(sum(len(message.plain) for message in thought))
    assert max(lengths["low"]) == 0 < min(lengths["medium"])
    mean = {effort: sum(found) / len(found) for effort, found in lengths.items()}
    assert mean["medium"] < mean["high"]
