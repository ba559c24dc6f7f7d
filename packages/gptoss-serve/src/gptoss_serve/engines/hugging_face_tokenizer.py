"""The harmony vocabulary as a Hugging Face `tokenizer.json`, for folders that came without one.

```
write_tokenizer(Path("nano-hf"))     # tokenizer.json and tokenizer_config.json, 20 MB
```

vLLM holds answers to a grammar only if it knows the bytes of every token. Byte-pair encoding is
written in two tables there: the tokens, and the pairs that merge into them. A token's pairs are all
its splits into two shorter tokens, those of the lowest ids first; merges apply in the order of the
token they make, which is what a table of ranks says in one number.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gptoss_harmony import load_encoding
from gptoss_harmony.tokens import (
    END_OF_TEXT,
    FIRST_SPECIAL,
    RETURN,
    START_OF_TEXT,
    VOCABULARY_SIZE,
    special_token_text,
)

# How o200k cuts text into words before it merges bytes, published with the vocabulary.
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_WORDS: Final = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def write_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`; each appears when it is complete.

    Raises:
        OSError: the folder cannot be written.
    """
    tokens = load_encoding().token_bytes[:FIRST_SPECIAL]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special_token_text(START_OF_TEXT),
        "eos_token": special_token_text(RETURN),
        "pad_token": special_token_text(END_OF_TEXT),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131_072,
    }
    _replace(folder / "tokenizer_config.json", settings)
    _replace(folder / "tokenizer.json", tokenizer_json(tokens))


def tokenizer_json(tokens: Sequence[bytes]) -> dict[str, Any]:
    """Return the tokenizer, given the bytes of its ordinary tokens in the order of their ids."""
    letters = _letters()
    words = ["".join(letters[byte] for byte in token) for token in tokens]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    split = {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(token) for token in range(FIRST_SPECIAL, VOCABULARY_SIZE)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split, {**byte_level, "use_regex": False}],
        },
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # a word that is a token is that token
            "vocab": {word: token for token, word in enumerate(words)},
            "merges": merges(words),
        },
    }


def merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return every pair of tokens that makes a token, in the order in which they merge."""
    ids = {word: token for token, word in enumerate(words)}
    found = []
    for word in words:
        splits = ((word[:cut], word[cut:]) for cut in range(1, len(word)))
        pairs = [(left, right) for left, right in splits if left in ids and right in ids]
        found += sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return found


def _letters() -> list[str]:
    """The printable character that stands for each byte, as GPT-2 chose them."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    codes = {byte: byte for byte in shown} | {byte: 256 + n for n, byte in enumerate(hidden)}
    return [chr(codes[byte]) for byte in range(256)]


def _special(token: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": special_token_text(token), **flags, "special": True}


def _replace(path: Path, content: Any) -> None:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-", delete=False
    ) as file:
        json.dump(content, file, ensure_ascii=False)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
