"""The harmony encoding, loaded offline: text and conversations to tokens, and back.

```
encoding = load_encoding()
tokens = encoding.render_conversation_for_completion(conversation, Role.ASSISTANT)
messages = encoding.parse_messages_from_completion_tokens(answer, Role.ASSISTANT)
```

Byte-pair encoding is `openai-harmony`'s; its vocabulary ships in this package (o200k_base, 199,998
ordinary tokens; MIT, as published with tiktoken) and is checked against its published SHA-256.
Rendering and parsing are ours, so that every release of `openai-harmony`, and `oss-harmony` which
installs the same module, gives the same tokens and the same messages.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
import threading
from collections.abc import Collection, Sequence, Set
from pathlib import Path
from typing import Final, Literal

import openai_harmony
from openai_harmony import (
    Conversation,
    HarmonyEncoding,
    HarmonyEncodingName,
    Message,
    RenderConversationConfig,
    RenderOptions,
    Role,
)

from gptoss_harmony import tokens as special
from gptoss_harmony.engine import Prompt
from gptoss_harmony.errors import ConversationError, HarmonyError
from gptoss_harmony.parse import StreamParser
from gptoss_harmony.render import Renderer, RenderStyle

__all__ = [
    "Encoding",
    "HarmonyEncodingName",
    "load_encoding",
    "load_harmony_encoding",
    "read_vocabulary",
]

VOCABULARY_FILE: Final = Path(__file__).parent / "vocabulary" / "o200k_base.tiktoken"
VOCABULARY_SHA256: Final = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"

_FOLDER_VARIABLE: Final = "TIKTOKEN_ENCODINGS_BASE"
_SPECIAL: Final = re.compile(r"<\|[a-z]+(?:_[0-9]{6})?\|>")
_LOCK: Final = threading.Lock()  # one loader at a time may change the environment


def load_encoding() -> Encoding:
    """Return the harmony encoding of gpt-oss; the same object every time.

    Never touches the network and may be called from many threads. While it loads it sets the
    environment variable TIKTOKEN_ENCODINGS_BASE and puts it back.

    Raises:
        HarmonyError: the bundled vocabulary is missing or damaged.
    """
    with _LOCK:
        return _load()


def load_harmony_encoding(name: str | HarmonyEncodingName) -> Encoding:
    """Return `load_encoding()`, under the name that users of openai-harmony know.

    Args:
        name: `HarmonyEncodingName.HARMONY_GPT_OSS`, the only one there is.

    Raises:
        HarmonyError: another name.
    """
    encoding = load_encoding()
    if str(name) != encoding.name:
        raise HarmonyError(f"unknown encoding {str(name)!r}; the only one is {encoding.name!r}")
    return encoding


@functools.cache
def _load() -> Encoding:
    vocabulary = read_vocabulary(VOCABULARY_FILE)
    saved = os.environ.get(_FOLDER_VARIABLE)
    os.environ[_FOLDER_VARIABLE] = str(VOCABULARY_FILE.parent)
    try:
        harmony = openai_harmony.load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    except openai_harmony.HarmonyError as error:
        raise HarmonyError(
            f"openai-harmony cannot load its vocabulary from {VOCABULARY_FILE}: {error}"
        ) from error
    finally:
        if saved is None:
            del os.environ[_FOLDER_VARIABLE]
        else:
            os.environ[_FOLDER_VARIABLE] = saved
    return Encoding(harmony, vocabulary)


def read_vocabulary(path: Path) -> tuple[bytes, ...]:
    """Return the bytes of every token id, special ones included, from a checked tiktoken file.

    Args:
        path: a file of `base64 rank` lines, ranks ascending from 0.

    Returns:
        201,089 byte strings; the text of special tokens is their name, such as `<|start|>`.

    Raises:
        HarmonyError: the file cannot be read or its SHA-256 is not that of o200k_base.
    """
    remedy = "reinstall with: pip install --force-reinstall gptoss-harmony"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HarmonyError(
            f"cannot read the vocabulary {path}: {error.strerror}; {remedy}"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != VOCABULARY_SHA256:
        raise HarmonyError(
            f"the vocabulary {path} is damaged ({len(data):,} bytes, SHA-256 {digest[:12]}..., "
            f"expected {VOCABULARY_SHA256[:12]}...); {remedy}"
        )
    decode = base64.b64decode
    ordinary = [decode(line[: line.index(b" ")]) for line in data.splitlines()]
    named = range(special.FIRST_SPECIAL, special.LAST_SPECIAL + 1)
    return (*ordinary, *(special.special_token_text(token).encode() for token in named))


class Encoding:
    """Tokens, prompts and messages of gpt-oss; made by `load_encoding`.

    The methods that `openai_harmony.HarmonyEncoding` also has take the same arguments and return
    the same values, byte for byte as openai-harmony 0.0.8 does by default.

    Attributes:
        name: `HarmonyGptOss`.
        vocabulary_size: 201,088, the rows of the model's embedding.
        token_bytes: the bytes of each token id.
        special_tokens: name to id of the nine markers in use, `<|start|>` and so on.
        harmony: the `openai_harmony.HarmonyEncoding` underneath.
    """

    def __init__(self, harmony: HarmonyEncoding, token_bytes: tuple[bytes, ...]) -> None:
        self.harmony = harmony
        self._inner = harmony._inner  # what openai-harmony's own StreamableParser asks for
        self.name: str = harmony.name
        self.token_bytes = token_bytes
        self.vocabulary_size = special.VOCABULARY_SIZE
        self.special_tokens = special.SPECIAL_TOKENS

    def __repr__(self) -> str:
        return f"Encoding({self.name!r}, vocabulary_size={self.vocabulary_size})"

    # Text.

    def encode(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | Set[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[int]:
        """Turn text into tokens.

        Args:
            text: a lone surrogate becomes U+FFFD.
            allowed_special: names that become special tokens, or "all".
            disallowed_special: names that must not occur; "all" means those not allowed. With ()
                every other name is encoded as the plain characters that it is made of.

        Raises:
            HarmonyError: the text holds a disallowed name.
        """
        allowed: set[str] = set()
        for name in set(_SPECIAL.findall(text)) if "<|" in text else ():
            if special.special_token_id(name) is None:
                continue
            if allowed_special == "all" or name in allowed_special:
                allowed.add(name)
            elif disallowed_special == "all" or name in disallowed_special:
                raise HarmonyError(
                    f"the text holds the special token {name!r}; pass allowed_special={{{name!r}}} "
                    "to encode it as one, or disallowed_special=() to encode it as plain text"
                )
        return self._tokens(text, allowed)

    def encode_text(self, text: str) -> list[int]:
        """Turn untrusted text into ordinary tokens only: no character of it becomes a marker."""
        return self._tokens(text, set())

    def _tokens(self, text: str, allowed: set[str]) -> list[int]:
        """Encode; the library panics at a run of about a million letters, as no `Exception`."""
        try:
            return self.harmony.encode(text, allowed_special=allowed, disallowed_special=())
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise ConversationError(
                f"a text of {len(text)} characters has too long a run without a break to be turned "
                "into tokens; break it up"
            ) from error

    def decode(self, tokens: Sequence[int], errors: str = "replace") -> str:
        """Turn tokens into text; bytes that are not UTF-8 become U+FFFD.

        Raises:
            HarmonyError: an id outside the vocabulary.
        """
        return self.decode_bytes(tokens).decode("utf-8", errors=errors)

    def decode_utf8(self, tokens: Sequence[int]) -> str:
        """Turn tokens into text, refusing what is not UTF-8.

        Raises:
            HarmonyError: the bytes are not UTF-8, or an id is outside the vocabulary.
        """
        data = self.decode_bytes(tokens)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise HarmonyError(
                f"the tokens are not UTF-8 at byte {error.start}; decode() replaces such bytes"
            ) from error

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """Turn tokens into bytes.

        Raises:
            HarmonyError: an id outside the vocabulary.
        """
        table = self.token_bytes
        for token in tokens:
            if not 0 <= token < len(table):
                raise HarmonyError(f"{token} is not a token: ids are 0..{len(table) - 1}")
        return b"".join([table[token] for token in tokens])

    # Tokens.

    def is_special_token(self, token: int) -> bool:
        """Whether the id is a marker or reserved, and not text."""
        return special.FIRST_SPECIAL <= token <= special.LAST_SPECIAL

    @functools.cached_property
    def special_tokens_set(self) -> frozenset[str]:
        """Every special name, the reserved ones included."""
        ids = range(special.FIRST_SPECIAL, special.LAST_SPECIAL + 1)
        return frozenset(special.special_token_text(token) for token in ids)

    def stop_tokens(self) -> list[int]:
        """Ids that end a message: `<|return|>`, `<|end|>`, `<|call|>`."""
        return sorted(special.MESSAGE_ENDS)

    def stop_tokens_for_assistant_actions(self) -> list[int]:
        """Ids that end the model's turn: `<|return|>` and `<|call|>`."""
        return sorted(special.ASSISTANT_ACTION_ENDS)

    # Conversations to tokens.

    def render_prompt(
        self,
        conversation: Conversation | Sequence[Message],
        *,
        next_turn_role: Role = Role.ASSISTANT,
        channel: str | None = None,
        recipient: str | None = None,
        style: RenderStyle | None = None,
    ) -> Prompt:
        """Return the tokens that ask for the next turn, with a `Span` for every part of them.

        Args:
            conversation: the messages so far.
            next_turn_role: who speaks next.
            channel: write the next message's header up to `<|message|>` with this channel, so that
                the answer starts inside it; None leaves the header to the model.
            recipient: the same for a call of this tool, `functions.f`.
            style: options; None renders as openai-harmony 0.0.8 does.

        Raises:
            ConversationError: a message that cannot be rendered.
        """
        renderer = Renderer(self, style)
        renderer.conversation(conversation)
        renderer.next_turn(next_turn_role, channel=channel, recipient=recipient)
        return Prompt(tuple(renderer.tokens), tuple(renderer.spans))

    def render_conversation_for_completion(
        self,
        conversation: Conversation | Sequence[Message],
        next_turn_role: Role,
        config: RenderConversationConfig | None = None,
        *,
        style: RenderStyle | None = None,
    ) -> list[int]:
        """Return the conversation and the start of the next turn, `<|start|>assistant`.

        Raises:
            ConversationError: a message that cannot be rendered.
        """
        renderer = Renderer(self, _with_config(style, config))
        renderer.conversation(conversation)
        renderer.next_turn(next_turn_role)
        return renderer.tokens

    def render_conversation(
        self,
        conversation: Conversation | Sequence[Message],
        config: RenderConversationConfig | None = None,
        *,
        style: RenderStyle | None = None,
    ) -> list[int]:
        """Return the conversation alone, with nothing after its last message.

        Raises:
            ConversationError: a message that cannot be rendered.
        """
        renderer = Renderer(self, _with_config(style, config))
        renderer.conversation(conversation)
        return renderer.tokens

    def render_conversation_for_training(
        self,
        conversation: Conversation | Sequence[Message],
        config: RenderConversationConfig | None = None,
        *,
        style: RenderStyle | None = None,
    ) -> list[int]:
        """Return the conversation with `<|return|>` after a last final message, as sampled.

        Raises:
            ConversationError: a message that cannot be rendered.
        """
        renderer = Renderer(self, _with_config(style, config))
        renderer.conversation(conversation, training=True)
        return renderer.tokens

    def render(
        self,
        message: Message,
        render_options: RenderOptions | None = None,
        *,
        style: RenderStyle | None = None,
    ) -> list[int]:
        """Return one message.

        Raises:
            ConversationError: the message cannot be rendered.
        """
        renderer = Renderer(self, style)
        functions = render_options is not None and render_options.conversation_has_function_tools
        renderer.message(message, has_functions=functions)
        return renderer.tokens

    # Tokens to messages.

    def parse_messages_from_completion_tokens(
        self, tokens: Sequence[int], role: Role | None = None, *, strict: bool = True
    ) -> list[Message]:
        """Return the messages in an answer.

        Args:
            tokens: what the model wrote.
            role: who wrote it, where the prompt already held `<|start|>role`.
            strict: False recovers from malformed headers as `StreamParser` does.

        Raises:
            ParseError: strict, and the tokens are not harmony.
        """
        parser = StreamParser(self, role, strict=strict)
        for token in tokens:
            parser.process(token)
        parser.finish()
        return parser.messages


def _with_config(style: RenderStyle | None, config: RenderConversationConfig | None) -> RenderStyle:
    """Fold openai-harmony's one switch into our style."""
    style = style or RenderStyle()
    keep = config is not None and not config.auto_drop_analysis
    return style.replace(drop_analysis="never") if keep else style
