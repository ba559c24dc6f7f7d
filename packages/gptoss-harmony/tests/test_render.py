"""Rendering equals openai-harmony 0.0.8 token for token; spans cover; options do what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai_harmony import (
    Author,
    ChannelConfig,
    Conversation,
    DeveloperContent,
    Message,
    ReasoningEffort,
    RenderConversationConfig,
    RenderOptions,
    Role,
    SystemContent,
    TextContent,
    ToolDescription,
    ToolNamespaceConfig,
)

from gptoss_harmony import tokens as special
from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.errors import ConversationError
from gptoss_harmony.render import RenderStyle

ENCODING = load_encoding()
MARKERS = ["<|end|>", "<|start|>assistant<|channel|>final<|message|>", "<|call|>", "# Tools\n"]
TEXT = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.lists(st.sampled_from([*MARKERS, "a b", "\r\n", "\n\n", "é👩‍🚀"]), max_size=4).map("".join),
)
NAME = st.one_of(st.sampled_from(["functions.f", "browser.open", "python", "all"]), TEXT)
MAYBE = st.one_of(st.none(), TEXT)

TOOLS = st.builds(
    ToolDescription,
    name=TEXT,
    description=TEXT,
    parameters=st.one_of(
        st.none(),
        st.just({}),
        st.just({"type": "object", "properties": {"x": {"type": "integer", "default": None}}}),
    ),
)
NAMESPACES = st.one_of(
    st.sampled_from([ToolNamespaceConfig.browser(), ToolNamespaceConfig.python()]),
    st.builds(
        ToolNamespaceConfig,
        name=st.one_of(st.just("functions"), TEXT),
        description=MAYBE,
        tools=st.lists(TOOLS, max_size=2),
    ),
)
TOOL_MAPS = st.one_of(
    st.none(),
    st.lists(NAMESPACES, max_size=3).map(lambda configs: {c.name: c for c in configs}),
)
SYSTEM = st.builds(
    SystemContent,
    model_identity=MAYBE,
    reasoning_effort=st.one_of(st.none(), st.sampled_from(list(ReasoningEffort))),
    conversation_start_date=MAYBE,
    knowledge_cutoff=MAYBE,
    channel_config=st.one_of(
        st.none(),
        st.builds(
            ChannelConfig,
            valid_channels=st.lists(TEXT, max_size=3),
            channel_required=st.booleans(),
        ),
    ),
    tools=TOOL_MAPS,
)
DEVELOPER = st.builds(DeveloperContent, instructions=MAYBE, tools=TOOL_MAPS)
PLAIN = st.builds(TextContent, text=TEXT)
CHANNEL = st.one_of(st.none(), st.sampled_from(["analysis", "commentary", "final"]), TEXT)


def message(role: Role, content: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    return st.builds(
        Message,
        author=st.builds(
            Author,
            role=st.just(role),
            name=TEXT if role == Role.TOOL else st.one_of(st.none(), TEXT),
        ),
        content=st.lists(content, max_size=2),
        channel=CHANNEL,
        recipient=st.one_of(st.none(), NAME),
        content_type=st.one_of(st.none(), st.sampled_from(["<|constrain|>json", "code"]), TEXT),
    )


MESSAGES = st.one_of(
    message(Role.SYSTEM, st.one_of(SYSTEM, PLAIN)),
    message(Role.DEVELOPER, st.one_of(DEVELOPER, PLAIN)),
    message(Role.USER, PLAIN),
    message(Role.ASSISTANT, PLAIN),
    message(Role.ASSISTANT, PLAIN),
    message(Role.TOOL, PLAIN),
)
CONVERSATIONS = st.lists(MESSAGES, max_size=6).map(Conversation.from_messages)


def text(role: str, words: str, channel: str | None = None) -> Message:
    made = Message.from_role_and_content(Role(role), words)
    return made.with_channel(channel) if channel else made


def chain(*parts: tuple[str, str]) -> Conversation:
    """A conversation of (channel, text); `user` in place of a channel is a question."""
    return Conversation.from_messages(
        [
            text("user", words) if channel == "user" else text("assistant", words, channel)
            for channel, words in parts
        ]
    )


@settings(max_examples=80, deadline=None)
@given(CONVERSATIONS, st.booleans())
@example(chain(("user", "q"), ("analysis", "a"), ("final", "f"), ("analysis", "b")), True)
def test_every_render_equals_openai_harmony(conversation: Conversation, drop: bool) -> None:
    config = RenderConversationConfig(auto_drop_analysis=drop)
    theirs = ENCODING.harmony
    for role in (Role.ASSISTANT, Role.USER):
        ours = ENCODING.render_conversation_for_completion(conversation, role, config)
        assert ours == theirs.render_conversation_for_completion(conversation, role, config)
    assert ENCODING.render_conversation(conversation, config) == theirs.render_conversation(
        conversation, config
    )
    ours = ENCODING.render_conversation_for_training(conversation, config)
    assert ours == theirs.render_conversation_for_training(conversation, config)


@settings(max_examples=70, deadline=None)
@given(MESSAGES, st.booleans())
def test_one_message_equals_openai_harmony(made: Message, functions: bool) -> None:
    options = RenderOptions(conversation_has_function_tools=functions)
    assert ENCODING.render(made, options) == ENCODING.harmony.render(made, options)


@settings(max_examples=70, deadline=None)
@given(CONVERSATIONS)
def test_spans_cover_every_token_once(conversation: Conversation) -> None:
    prompt = ENCODING.render_prompt(conversation)
    edge = 0
    for span in prompt.spans:
        assert span.start == edge
        assert span.stop > span.start
        edge = span.stop
    assert edge == len(prompt.tokens)
    starts = [i for i, token in enumerate(prompt.tokens) if token == special.START]
    first = {span.message: span.start for span in reversed(prompt.spans)}
    assert [first[i] for i in range(len(starts))] == starts


@settings(max_examples=70, deadline=None)
@given(TEXT)
def test_no_text_becomes_a_marker(words: str) -> None:
    made = Message(
        author=Author(role=Role.TOOL, name=words),
        content=[TextContent(text=words)],
        channel=words,
        recipient=words,
        content_type="x" + words,
    )
    markers = [token for token in ENCODING.render(made) if ENCODING.is_special_token(token)]
    assert markers == [special.START, special.CHANNEL, special.MESSAGE, special.END]


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    tokens = ENCODING.render(text("user", "a\ud800b"))
    assert ENCODING.decode(tokens) == "<|start|>user<|message|>a\ufffdb<|end|>"


def call(recipient: str, channel: str) -> Message:
    return text("assistant", "{}", channel).with_recipient(recipient)


def rendered(messages: Sequence[Message], **style: Any) -> str:
    tokens = ENCODING.render_conversation(messages, style=RenderStyle(**style))
    return ENCODING.decode(tokens)


def test_channel_first_puts_the_recipient_behind_the_channel() -> None:
    made = call("functions.f", "commentary").with_content_type("<|constrain|>json")
    reply = Message.from_author_and_content(Author.new(Role.TOOL, "functions.f"), "1")
    reply = reply.with_channel("commentary").with_recipient("assistant")
    assert rendered([made, reply], header_order="channel_first") == (
        "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}"
        "<|call|><|start|>functions.f<|channel|>commentary to=assistant<|message|>1<|end|>"
    )
    assert rendered([made]).startswith("<|start|>assistant to=functions.f<|channel|>commentary")
    without = Message.from_role_and_content(Role.ASSISTANT, "{}").with_recipient("python")
    assert rendered([without], header_order="channel_first").startswith(
        "<|start|>assistant to=python<|message|>"
    )


OLD = (("user", "1"), ("analysis", "a1"), ("final", "f1"))
NEW = (("user", "2"), ("analysis", "a2"), ("final", "f2"))


@pytest.mark.parametrize(
    ("parts", "policy", "kept"),
    [
        ((*OLD, *NEW), "harmony", ["a2"]),  # only what came before the first final goes
        ((*OLD, *NEW), "before_last_final", []),
        ((*OLD, *NEW), "never", ["a1", "a2"]),
        ((*OLD, ("user", "2"), ("analysis", "a2")), "harmony", ["a1", "a2"]),
        ((*OLD, ("user", "2"), ("analysis", "a2")), "before_last_final", ["a2"]),
        ((("user", "1"), ("analysis", "a1")), "harmony", ["a1"]),
        ((("user", "1"), ("analysis", "a1")), "before_last_final", ["a1"]),
    ],
)
def test_old_analysis_is_dropped(
    parts: Sequence[tuple[str, str]], policy: str, kept: list[str]
) -> None:
    shown = rendered(chain(*parts).messages, drop_analysis=policy)
    assert [name for name in ("a1", "a2") if f">{name}<" in shown] == kept


def test_spans_name_channels_tools_and_headings() -> None:
    system = SystemContent.new().with_browser_tool()
    tool = ToolDescription.new("f", "says", {"type": "object"})
    developer = DeveloperContent.new().with_instructions("Be.").with_function_tools([tool])
    reply = Message.from_author_and_content(Author.new(Role.TOOL, "functions.f"), "# Not a heading")
    prompt = ENCODING.render_prompt(
        [
            Message.from_role_and_content(Role.SYSTEM, system),
            Message.from_role_and_content(Role.DEVELOPER, developer),
            call("functions.f", "commentary"),
            reply.with_channel("commentary"),
        ],
        channel="final",
    )

    def words(**labels: Any) -> str:
        chosen = [
            span
            for span in prompt.spans
            if all(getattr(span, name) == value for name, value in labels.items())
        ]
        return "".join(ENCODING.decode(prompt.tokens[s.start : s.stop]) for s in chosen)

    assert words(heading="# Instructions") == "# Instructions\n\nBe.\n\n"
    assert words(heading="## browser").startswith("## browser\n\n// Tool for browsing.")
    assert words(heading="## functions").endswith("// namespace functions<|end|>")
    assert words(role="assistant", tool="functions.f") == (
        "<|start|>assistant to=functions.f<|channel|>commentary<|message|>{}<|call|>"
    )
    assert words(role="tool", tool="functions.f", heading=None) == (
        "<|start|>functions.f<|channel|>commentary<|message|># Not a heading<|end|>"
    )
    assert words(message=4) == "<|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({}, "<|start|>assistant"),
        ({"channel": "final"}, "<|start|>assistant<|channel|>final<|message|>"),
        (
            {"recipient": "functions.f"},
            "<|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>",
        ),
        (
            {"recipient": "python", "channel": "analysis"},
            "<|start|>assistant to=python<|channel|>analysis<|message|>",
        ),
    ],
)
def test_the_next_header_can_be_written_out(header: dict[str, str], words: str) -> None:
    prompt = ENCODING.render_prompt([], **header)  # type: ignore[arg-type]
    assert ENCODING.decode(prompt.tokens) == words
    assert prompt.spans[0].tool == header.get("recipient")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Message(author=Author(role=Role.TOOL)), "tool's name"),
        (lambda: Message.from_role_and_content(Role.USER, SystemContent()), "system messages"),
        (
            lambda: Message.from_role_and_content(Role.SYSTEM, DeveloperContent()),
            "developer messages",
        ),
        (
            lambda: Message.from_role_and_content(
                Role.DEVELOPER,
                DeveloperContent.new().with_function_tools(
                    [ToolDescription.new("f", "", {"default": float("nan")})]
                ),
            ),
            "'f' are not JSON",
        ),
    ],
)
def test_what_cannot_be_rendered_says_why(make: Callable[[], Message], words: str) -> None:
    with pytest.raises(ConversationError, match=words):
        ENCODING.render(make())


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ConversationError, match="recipient_first, channel_first"):
        RenderStyle(header_order="sideways")  # type: ignore[arg-type]
