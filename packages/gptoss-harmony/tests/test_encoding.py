"""The encoding loads offline, checked, once; its methods are those of openai-harmony."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai_harmony
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_harmony import Conversation, HarmonyEncodingName, Message, Role

from gptoss_harmony import encoding as module
from gptoss_harmony import tokens as special
from gptoss_harmony.encoding import load_encoding, load_harmony_encoding, read_vocabulary
from gptoss_harmony.errors import ConversationError, HarmonyError

ENCODING = load_encoding()
THEIRS = ENCODING.harmony

OFFLINE = """
import os, socket, tempfile
def refuse(*_, **__):
    raise AssertionError("something touched the network")
socket.socket.connect = socket.getaddrinfo = refuse
os.environ["TIKTOKEN_RS_CACHE_DIR"] = tempfile.mkdtemp()
before = dict(os.environ)
from gptoss_harmony.encoding import load_encoding
assert dict(os.environ) == before, "importing changed the environment"
encoding = load_encoding()
assert dict(os.environ) == before, "loading changed the environment"
print(encoding.encode("hello world"), os.listdir(os.environ["TIKTOKEN_RS_CACHE_DIR"]))
"""


@pytest.mark.parametrize("folder", [None, "/nonexistent"])
def test_loading_needs_no_network_and_restores_the_environment(folder: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TIKTOKEN_ENCODINGS_BASE"}
    environment["PYTHONPATH"] = str(Path(module.__file__).parents[1])
    environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    if folder is not None:
        environment["TIKTOKEN_ENCODINGS_BASE"] = folder
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[24912, 2375] []"


def test_many_threads_get_one_encoding() -> None:
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda _: load_encoding(), range(32)))
    assert all(encoding is ENCODING for encoding in loaded)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-1], "is damaged"),
        (lambda data: data.replace(b"IQ== 0", b"Ig== 0", 1), "is damaged"),
        (lambda data: b"", "is damaged"),
        (None, "cannot read"),
    ],
)
def test_a_damaged_vocabulary_says_so(
    tmp_path: Path, spoil: Callable[[bytes], bytes] | None, words: str
) -> None:
    path = tmp_path / "o200k_base.tiktoken"
    if spoil is not None:
        path.write_bytes(spoil(module.VOCABULARY_FILE.read_bytes()))
    with pytest.raises(HarmonyError, match=rf"{words}.*pip install --force-reinstall"):
        read_vocabulary(path)


def test_token_bytes_are_those_of_openai_harmony() -> None:
    table = ENCODING.token_bytes
    assert len(table) == special.LAST_SPECIAL + 1
    for token in [*range(0, 199_998, 97), *range(special.FIRST_SPECIAL, len(table))]:
        assert table[token] == bytes(THEIRS._inner.decode_bytes([token]))


def test_special_tokens() -> None:
    assert ENCODING.special_tokens_set == THEIRS.special_tokens_set
    assert set(ENCODING.stop_tokens()) == set(THEIRS.stop_tokens())
    actions = ENCODING.stop_tokens_for_assistant_actions()
    assert set(actions) == set(THEIRS.stop_tokens_for_assistant_actions())
    for name, token in ENCODING.special_tokens.items():
        assert THEIRS.encode(name, allowed_special="all") == [token]
    for token in (0, 199_997, 199_998, 200_500, 201_088):
        assert ENCODING.is_special_token(token) == THEIRS.is_special_token(token)
    for name in sorted(ENCODING.special_tokens_set)[::50]:
        assert ENCODING.token_bytes[special.special_token_id(name) or 0] == name.encode()
    for name in ("<|reserved_200002|>", "<|reserved_1|>", "<|x|>", "start"):
        assert special.special_token_id(name) is None
    with pytest.raises(ValueError, match="17 is not a special token"):
        special.special_token_text(17)
    assert (ENCODING.name, ENCODING.vocabulary_size) == (THEIRS.name, 201_088)


PIECES = st.sampled_from(["<|end|>", "<|reserved_200013|>", "<|reserved_2|>", "<|", "|>", "<|x|>"])
TEXT = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.lists(st.one_of(PIECES, st.text(st.characters(codec="utf-8"), max_size=3))).map("".join),
)


@settings(max_examples=100, deadline=None)
@given(TEXT, st.sampled_from([frozenset(), {"<|end|>"}, "all"]), st.sampled_from(["all", ()]))
def test_encode_equals_openai_harmony(text: str, allowed: object, disallowed: object) -> None:
    options = {"allowed_special": allowed, "disallowed_special": disallowed}
    try:
        expected = THEIRS.encode(text, **options)
    except openai_harmony.HarmonyError:
        with pytest.raises(HarmonyError, match="allowed_special="):
            ENCODING.encode(text, **options)  # type: ignore[arg-type]
    else:
        assert ENCODING.encode(text, **options) == expected  # type: ignore[arg-type]
        assert ENCODING.decode(expected) == text
    assert all(token < special.FIRST_SPECIAL for token in ENCODING.encode_text(text))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, special.LAST_SPECIAL), max_size=10))
def test_decode_equals_openai_harmony(tokens: list[int]) -> None:
    assert ENCODING.decode(tokens) == THEIRS.decode(tokens)
    try:
        expected = THEIRS.decode_utf8(tokens)
    except openai_harmony.HarmonyError:
        with pytest.raises(HarmonyError, match="not UTF-8 at byte"):
            ENCODING.decode_utf8(tokens)
    else:
        assert ENCODING.decode_utf8(tokens) == expected


@pytest.mark.parametrize("token", [-1, special.LAST_SPECIAL + 1])
def test_an_id_outside_the_vocabulary_is_named(token: int) -> None:
    with pytest.raises(HarmonyError, match=f"{token} is not a token"):
        ENCODING.decode([1, token])


def test_code_written_for_openai_harmony_works() -> None:
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    conversation = Conversation.from_messages([Message.from_role_and_content(Role.USER, "Hi")])
    prompt = encoding.render_conversation_for_completion(conversation, Role.ASSISTANT)
    assert encoding.decode(prompt) == "<|start|>user<|message|>Hi<|end|><|start|>assistant"
    answer = encoding.encode("<|channel|>final<|message|>Ho<|return|>", allowed_special="all")
    messages = encoding.parse_messages_from_completion_tokens(answer, role=Role.ASSISTANT)
    assert [message.to_dict()["content"][0]["text"] for message in messages] == ["Ho"]
    stream = openai_harmony.StreamableParser(encoding, role=Role.ASSISTANT)  # type: ignore[arg-type]
    for token in answer:
        stream.process(token)
    assert [message.channel for message in stream.messages] == ["final"]
    with pytest.raises(HarmonyError, match="the only one is 'HarmonyGptOss'"):
        load_harmony_encoding("other")


def test_a_run_that_the_library_cannot_encode_is_an_error_that_says_so() -> None:
    with pytest.raises(ConversationError, match="1000000 characters"):
        load_encoding().encode("a" * 1_000_000)
    assert load_encoding().decode(load_encoding().encode("still works")) == "still works"
