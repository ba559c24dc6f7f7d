"""Training documents are what the harmony renderer writes, with labels in the right places."""

from __future__ import annotations

import json
import random

import pytest
from recipe.episode import Episode, Message, plain
from recipe.mixture import TASKS, draw
from recipe.render import COPIED, LOSS, RETURN, Renderer, builtin, developer
from recipe.words import Words

from gptoss_harmony.conversation import Author, Conversation, Role, system_message, user_message
from gptoss_harmony.conversation import Message as HarmonyMessage
from gptoss_harmony.render import RenderStyle


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


@pytest.fixture(scope="module")
def words(renderer: Renderer) -> Words:
    return Words(renderer.encode)


def as_harmony(message: Message) -> HarmonyMessage:
    role = Role(message.role)
    made = HarmonyMessage.from_author_and_content(
        Author(role=role, name=message.name), message.plain
    )
    made = made.with_channel(message.channel)
    if message.recipient:
        made = made.with_recipient(message.recipient)
    return made.with_content_type(message.content_type) if message.content_type else made


def as_conversation(episode: Episode, date: str | None, variant: int) -> Conversation:
    tools = [builtin(name, variant) for name in sorted(episode.builtins)]
    messages = [system_message(effort=episode.effort, date=date, tools=tools)]
    if (dev := developer(episode)) is not None:
        messages.append(dev)
    for turn in episode.turns:
        messages.append(user_message(plain(turn.user)))
        for completion in turn.completions:
            replies = [completion.reply] if completion.reply else []
            messages += [as_harmony(m) for m in (*completion.messages, *replies)]
    return Conversation.from_messages(messages)


@pytest.mark.parametrize("task", TASKS)
def test_documents_equal_the_training_render(renderer: Renderer, words: Words, task: str) -> None:
    checked = 0
    whole = RenderStyle(drop_analysis="never")
    for index in range(12):
        drawn = draw(random.Random(f"render {task} {index}"), words, task=task)
        if len(drawn.episode.turns) > 1 and not drawn.keep_analysis:
            continue  # what is dropped from history is the next test's matter
        document = drawn.document(renderer)
        conversation = as_conversation(drawn.episode, drawn.date, drawn.variant)
        expected = renderer.encoding.render_conversation_for_training(conversation, style=whole)
        assert document.tokens == expected
        checked += 1
    assert checked > 3


def _ends_in_a_call(episode: Episode) -> bool:
    return episode.turns[-1].completions[-1].messages[-1].recipient is not None


def test_history_without_analysis_equals_the_renderer(renderer: Renderer, words: Words) -> None:
    found = 0
    for index in range(400):
        drawn = draw(random.Random(f"history {index}"), words, task="chat")
        episode = drawn.episode
        if len(episode.turns) != 2 or drawn.keep_analysis:
            continue
        asked = Episode(**{**vars(episode), "turns": episode.turns})
        full = as_conversation(asked, drawn.date, drawn.variant)
        cut = sum(len(c.messages) + bool(c.reply) for c in episode.turns[-1].completions)
        before = Conversation.from_messages(full.messages[: len(full.messages) - cut])
        expected = renderer.encoding.render_conversation_for_completion(before, Role.ASSISTANT)
        assert drawn.prompt(renderer) == expected
        found += 1
    assert found > 10


@pytest.mark.parametrize("task", TASKS)
def test_loss_is_on_what_the_model_writes(renderer: Renderer, words: Words, task: str) -> None:
    drawn = draw(random.Random(f"loss {task}"), words, task=task)
    document = drawn.document(renderer)
    prompt = drawn.prompt(renderer)
    assert document.tokens[: len(prompt)] == prompt
    assert not any(label & LOSS for label in document.labels[: len(prompt)])
    written = [t for t, label in zip(document.tokens, document.labels, strict=True) if label & LOSS]
    expected = [t for c in drawn.episode.turns[-1].completions for t in renderer.completion(c)]
    assert written == expected


def test_copied_words_are_marked_in_prompt_and_answer(renderer: Renderer, words: Words) -> None:
    drawn = draw(random.Random("copied 4"), words, task="extract", effort="low")
    document = drawn.document(renderer)
    marked = {
        int(renderer.words[token])
        for token, label in zip(document.tokens, document.labels, strict=True)
        if label & COPIED and label & LOSS
    }
    assert marked
    for word in marked:
        places = [
            label & LOSS
            for token, label in zip(document.tokens, document.labels, strict=True)
            if int(renderer.words[token]) == word and label & COPIED
        ]
        assert 0 in places


def test_calls_are_json_and_documents_end(renderer: Renderer, words: Words) -> None:
    for index in range(30):
        drawn = draw(random.Random(f"json {index}"), words, task="functions")
        call = drawn.episode.turns[-1].completions[0].messages[-1]
        assert json.loads(call.plain) == drawn.episode.about["arguments"]
        if not _ends_in_a_call(drawn.episode):
            last = drawn.document(renderer).tokens[-1]
            assert last == RETURN or drawn.episode.turns[-1].completions[-1].reply is not None
