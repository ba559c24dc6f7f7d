"""Which tokens get learned rows: `python -m recipe.kept --out rows.npy`.

Every special token that harmony uses, the 256 bytes, the numbers of one to three digits, everything
that the templates say, the names that people try first; then the lowest ids, which are the most
frequent merges of the vocabulary, until the table is full. Held-out names are never among them.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openai_harmony import SystemContent, ToolNamespaceConfig

from gptoss_harmony.tokens import FIRST_SPECIAL, SPECIAL_TOKENS
from recipe.lexicon import FAMOUS, FAMOUS_FAMILY
from recipe.mixture import draw
from recipe.render import COPIED, Renderer
from recipe.tasks.patch import product_sheet
from recipe.words import Words

_WORD = re.compile(r"[^\W\d_]+")
ROWS = 8192
SAMPLE = 4000  # conversations that are looked through for template tokens
OFTEN = 4  # conversations that a token must occur in


def kept_rows(renderer: Renderer, count: int = ROWS) -> NDArray[np.uint32]:
    """Return the ids of the learned rows, sorted."""
    words = Words(renderer.encode)
    kept = _always(renderer) | _of_templates(renderer, words)
    if kept & words.barred:
        raise ValueError(f"held-out names are in templates: {sorted(kept & words.barred)[:10]}")
    for token in range(FIRST_SPECIAL):
        if len(kept) >= count:
            break
        if token not in words.barred:
            kept.add(token)
    if len(kept) != count:
        raise ValueError(f"{len(kept)} tokens must be kept, which is more than {count} rows")
    return np.array(sorted(kept), dtype=np.uint32)


def _always(renderer: Renderer) -> set[int]:
    """Markers, bytes, numbers of up to three digits, and well-known names."""
    kept = set(SPECIAL_TOKENS.values()) | set(range(256))
    for token, text in enumerate(renderer.encoding.token_bytes[:FIRST_SPECIAL]):
        if text.isdigit() and text.isascii():
            kept.add(token)
    for name in (*FAMOUS, *FAMOUS_FAMILY):
        kept.update(renderer.encode(name), renderer.encode(" " + name))
    return kept


def _of_templates(renderer: Renderer, words: Words) -> set[int]:
    """Tokens that are no copied names, in many conversations."""
    seen: Counter[int] = Counter()
    for index in range(SAMPLE):
        document = draw(random.Random(f"kept {index}"), words).document(renderer)
        pairs = zip(document.tokens, document.labels, strict=True)
        seen.update({token for token, label in pairs if not label & COPIED})
    return {token for token, times in seen.items() if times >= OFTEN}


def template_words() -> list[str]:
    """Every word in this recipe's own text and in the descriptions of the builtin tools."""
    tools = (ToolNamespaceConfig.browser(), ToolNamespaceConfig.python())
    texts = [str(SystemContent().model_identity)]
    texts += [tool.model_dump_json() for tool in tools]
    texts.append(product_sheet())
    texts += [path.read_text("utf-8") for path in sorted(Path(__file__).parent.rglob("*.py"))]
    return sorted({word.casefold() for text in texts for word in _WORD.findall(text)})


def main(argv: Sequence[str] | None = None) -> int:
    """Write the list as an npy file, and the held-out names beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "rows.npy")
    parser.add_argument("--words", action="store_true", help="only renew taught.txt")
    options = parser.parse_args(argv)
    out = options.out
    if options.words:
        Path(__file__).with_name("taught.txt").write_text("\n".join(template_words()) + "\n")
        return 0
    renderer = Renderer()
    np.save(out, kept_rows(renderer))
    held = Words(renderer.encode).held_out_ids().astype(np.uint32)
    np.save(out.with_name("heldout.npy"), held)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
