"""Episodes -> tokens and labels, as the harmony renderer of gptoss-harmony writes them.

Long texts repeat (the system message, most developer messages of builtin tools), so encoded texts
are kept in a bounded cache; `tests/test_render.py` holds the tokens equal to the renderer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import openai_harmony
from openai_harmony import RenderOptions, ToolNamespaceConfig

from gptoss_harmony.conversation import ResponseFormat, developer_message, system_message
from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.nano_rows import token_words
from recipe.episode import (
    LATER,
    SYNTAX,
    VALUE,
    Completion,
    Episode,
    Message,
    Text,
    Turn,
    plain,
)
from recipe.lexicon import FAMOUS, FAMOUS_FAMILY, STOP_WORDS

START, END, MESSAGE, CHANNEL, CONSTRAIN = 200_006, 200_007, 200_008, 200_005, 200_003
RETURN, CALL = 200_002, 200_012
LOSS, COPIED = 1, 2  # label bits; the class stands in bits 4-7


@dataclass(frozen=True)
class Document:
    """Tokens with a label each."""

    task: str
    tokens: list[int]
    labels: list[int]


class Renderer:
    """Turns episodes into documents; one per process, as it holds the encoding and caches."""

    def __init__(self) -> None:
        self.encoding = load_encoding()
        self.encode = self.encoding.encode_text
        self.lengths = np.array([len(text) for text in self.encoding.token_bytes])
        self.words = token_words()
        self._system = lru_cache(maxsize=4096)(self._render_system)
        self._cached = lru_cache(maxsize=20_000)(lambda text: tuple(self.encode(text)))
        self._is_name = [_is_name(text) for text in self.encoding.token_bytes]
        for token in self._of_uneven_names():
            self._is_name[token] = False

    def _of_uneven_names(self) -> set[int]:
        """Tokens of well-known names that have other pieces after a space; renaming breaks them."""
        uneven: set[int] = set()
        for name in (*FAMOUS, *FAMOUS_FAMILY):
            bare, spaced = self.encode(name), self.encode(" " + name)
            if bare[1:] != spaced[1:] or self.words[bare[0]] != self.words[spaced[0]]:
                words = {int(self.words[token]) for token in (*bare, *spaced)}
                uneven.update(np.flatnonzero(np.isin(self.words, list(words))).tolist())
        return uneven

    def document(
        self, episode: Episode, *, date: str | None, keep_analysis: bool, variant: int = 0
    ) -> Document:
        """The whole conversation, with loss on the assistant's part of the last turn."""
        out = _Writer(self)
        self._preamble(out, episode, date, variant)
        for turn in episode.turns[:-1]:
            self._history(out, turn, keep_analysis=keep_analysis)
        last = episode.turns[-1]
        out.user(last.user)
        for completion in last.completions:
            self._completion(out, completion)
        return Document(episode.task, out.tokens, self._labels(out))

    def prompt(
        self, episode: Episode, *, date: str | None, keep_analysis: bool = False, variant: int = 0
    ) -> list[int]:
        """What the model sees before it first acts in the last turn."""
        out = _Writer(self)
        self._preamble(out, episode, date, variant)
        for turn in episode.turns[:-1]:
            self._history(out, turn, keep_analysis=keep_analysis)
        last = episode.turns[-1]
        out.user(last.user)
        out.special(START)
        out.words("assistant")
        return out.tokens

    def completion(self, completion: Completion) -> list[int]:
        """What the model should write after `<|start|>assistant`."""
        out = _Writer(self)
        self._completion(out, Completion(completion.messages))
        return out.tokens[2:]

    def reply(self, message: Message) -> list[int]:
        """A tool's reply and the start of the model's next message."""
        out = _Writer(self)
        self._message(out, message, loss=False, stop=END)
        out.special(START)
        out.words("assistant")
        return out.tokens

    def _preamble(self, out: _Writer, episode: Episode, date: str | None, variant: int) -> None:
        out.prompt(
            self._system(episode.effort, episode.builtins, date, bool(episode.tools), variant)
        )
        out.body = len(out.tokens)
        message = developer(episode)
        if message is not None:
            out.prompt(self.encoding.render(message))

    def _render_system(
        self, effort: str, builtins: frozenset[str], date: str | None, functions: bool, variant: int
    ) -> tuple[int, ...]:
        message = system_message(
            effort=effort, date=date, tools=[builtin(name, variant) for name in sorted(builtins)]
        )
        options = RenderOptions(conversation_has_function_tools=functions)
        return tuple(self.encoding.render(message, options))

    def _history(self, out: _Writer, turn: Turn, *, keep_analysis: bool) -> None:
        """An earlier turn: no loss, old analysis (python and browser included) mostly dropped."""
        out.user(turn.user)
        for completion in turn.completions:
            replies = [completion.reply] if completion.reply else []
            for message in [*completion.messages, *replies]:
                if keep_analysis or message.channel != "analysis":
                    self._message(
                        out,
                        message,
                        loss=False,
                        stop=CALL if message.recipient and message.role == "assistant" else END,
                    )

    def _completion(self, out: _Writer, completion: Completion) -> None:
        """Assistant messages with loss, the first one's `<|start|>assistant` given; the reply."""
        for index, message in enumerate(completion.messages):
            final = index == len(completion.messages) - 1
            stop = END if not final else CALL if message.recipient else RETURN
            self._message(out, message, loss=True, stop=stop, given=index == 0)
        if completion.reply is not None:
            self._message(out, completion.reply, loss=False, stop=END)

    def _message(
        self, out: _Writer, message: Message, *, loss: bool, stop: int, given: bool = False
    ) -> None:
        out.loss = loss and not given
        out.special(START)
        out.words(message.name if message.role == "tool" and message.name else message.role)
        out.loss = loss
        if message.recipient:
            out.words(f" to={message.recipient}")
        out.special(CHANNEL)
        out.words(message.channel)
        if message.content_type:
            kind = message.content_type.removeprefix("<|constrain|>")
            if kind != message.content_type:
                out.words(" ")
                out.special(CONSTRAIN)
                out.words(kind)
            else:
                out.words(" " + kind)
        out.special(MESSAGE)
        out.text(message.text)
        out.special(stop)
        out.loss = False

    def _labels(self, out: _Writer) -> list[int]:
        """Mark every occurrence of a word that is copied somewhere in the conversation."""
        copied = {int(self.words[t]) for t in out.copied if self._is_name[t]}
        labels = out.labels
        for index in range(out.body, len(out.tokens)):
            token = out.tokens[index]
            if int(self.words[token]) in copied and self._is_name[token]:
                labels[index] |= COPIED
        return labels


class _Writer:
    """Tokens under construction."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self.tokens: list[int] = []
        self.labels: list[int] = []
        self.copied: set[int] = set()
        self.loss = False
        self.body = 0  # where the system message ends

    def special(self, token: int) -> None:
        self.tokens.append(token)
        self.labels.append(SYNTAX << 4 | LOSS if self.loss else 0)

    def words(self, text: str) -> None:
        ids = self.renderer._cached(text)
        self.tokens.extend(ids)
        self.labels.extend([SYNTAX << 4 | LOSS if self.loss else 0] * len(ids))

    def prompt(self, ids: Sequence[int]) -> None:
        """Tokens without loss."""
        self.tokens.extend(ids)
        self.labels.extend([0] * len(ids))

    def user(self, text: Text) -> None:
        self.special(START)
        self.words("user")
        self.special(MESSAGE)
        self.text(text)
        self.special(END)

    def text(self, text: Text) -> None:
        """Encode a text as one string and give each token the label of its last byte."""
        whole = plain(text)
        ids = self.renderer._cached(whole)
        ends = np.cumsum(self.renderer.lengths[list(ids)]) - 1 if ids else np.zeros(0, np.int64)
        edges = np.cumsum([len(piece[0].encode()) for piece in text])
        places = np.searchsorted(edges, ends, side="right").tolist()
        before = -1
        for token, place in zip(ids, places, strict=True):
            _, kind, copied = text[place]
            if copied:
                self.copied.add(token)
            if kind == VALUE and place == before:
                kind = LATER
            before = place
            self.tokens.append(token)
            self.labels.append(kind << 4 | LOSS if self.loss else 0)


def _is_name(text: bytes) -> bool:
    """Whether a token is a word that may be renamed: letters only, and none of ours."""
    try:
        word = text.decode()
    except UnicodeDecodeError:
        return False
    if not word[0].isalpha():
        word = word[1:]
    return len(word) > 0 and word.isalpha() and word.casefold() not in STOP_WORDS


# How python tools describe themselves after their purpose: None is the notebook of the model card,
# the next one the jail of gptoss-tools, the others are shorter.
PYTHON_TEXTS = (
    None,
    "When you send a message containing Python code to python, it will be executed as a script in "
    "a fresh process, and what it writes to stdout and stderr will be returned to you. Nothing is "
    "kept between calls but the files in '/mnt/data'. You have to use print statements to access "
    "the output. The execution times out after 120 seconds. There is no internet access.",
    "Each message runs as a program of its own, and python responds with what it printed: use "
    "print to see a value.",
    "Nothing is kept between calls.",
)


def builtin(name: str, variant: int) -> ToolNamespaceConfig:
    """The namespace of a builtin tool; 0 is the description of openai-harmony."""
    if name == "browser":
        config = ToolNamespaceConfig.browser()
        if variant % 4 == 3:
            text = (config.description or "").rpartition("\n")[0]
            return config.model_copy(update={"description": text})
        return config
    text = PYTHON_TEXTS[variant % len(PYTHON_TEXTS)]
    config = ToolNamespaceConfig.python()
    if text is None:
        return config
    purpose = (config.description or "").split("\n\n")[0]
    return config.model_copy(update={"description": f"{purpose}\n\n{text}"})


def developer(episode: Episode) -> openai_harmony.Message | None:
    """The developer message; None where there is nothing to say."""
    if not (episode.instructions or episode.tools or episode.formats):
        return None
    form = next(
        (ResponseFormat(f["schema"], f["name"], f["description"]) for f in episode.formats), None
    )
    return developer_message(episode.instructions, functions=episode.tools, response_format=form)
