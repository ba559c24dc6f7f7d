"""`gptoss bench parser`: how fast the streaming parser reads answers, and that it stays linear.

Reads one answer of ordinary messages, one single message of a given size, and hostile answers of
the same number of tokens, beside openai-harmony's StreamableParser in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import openai_harmony

from gptoss_harmony.encoding import Encoding, load_encoding
from gptoss_harmony.options import positive
from gptoss_harmony.parse import StreamParser

HELP = "tokens per second of the streaming parser, beside openai-harmony's"
REFERENCE_LIMIT = 20_000  # tokens given to the peer, which slows down as messages grow
PROSE = "The quick brown fox jumps over the lazy dog; 字 é 👩‍🚀. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of answer; rates in tokens per second, the best of the repetitions."""

    answer: str
    tokens: int
    rate: float
    quarter_rate: float  # on the first quarter of the same answer: equal if time is linear
    reference_rate: float | None  # None where openai-harmony raises


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--bytes", type=positive, default=1_000_000, metavar="N", help="text of the long message"
    )
    parser.add_argument(
        "--repeat", type=positive, default=3, metavar="N", help="runs; the best counts"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure every kind of answer and print a table or JSON."""
    encoding = load_encoding()
    rows = [
        measure(encoding, name, tokens, repeat=args.repeat)
        for name, tokens in answers(encoding, args.bytes).items()
    ]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    print(f"{'answer':<18}{'tokens':>10}{'tok/s':>12}{'1st quarter':>13}{'openai-harmony':>16}")
    for row in rows:
        peer = f"{row.reference_rate:,.0f}" if row.reference_rate else "raises"
        print(
            f"{row.answer:<18}{row.tokens:>10,}{row.rate:>12,.0f}{row.quarter_rate:>13,.0f}{peer:>16}"
        )
    return 0


def answers(encoding: Encoding, size: int) -> dict[str, list[int]]:
    """Return token sequences by name, about `size` bytes of text each."""

    def special(text: str) -> list[int]:
        return encoding.encode(text, allowed_special="all")

    prose = encoding.encode(PROSE)
    times = max(1, size // len(PROSE.encode()))
    header = special("<|start|>assistant<|channel|>analysis<|message|>")
    return {
        "short messages": (header + prose * 20 + special("<|end|>")) * max(1, times // 20),
        "one long message": header + prose * times,
        "no header": prose * times,
        "one long header": header[:1] + prose * times,
        "markers only": special("<|start|><|channel|>") * (times * 5),
    }


def measure(encoding: Encoding, name: str, tokens: Sequence[int], *, repeat: int) -> Row:
    """Time one answer, its first quarter, and the peer on its beginning."""

    def ours(part: Sequence[int]) -> None:
        parser = StreamParser(encoding)
        for token in part:
            for _ in parser.process(token):
                pass
        parser.finish()

    def theirs(part: Sequence[int]) -> None:
        parser = openai_harmony.StreamableParser(encoding.harmony, None)
        for token in part:
            parser.process(token)
            _ = parser.last_content_delta

    try:
        peer = _rate(theirs, tokens[:REFERENCE_LIMIT], repeat=1)
    except openai_harmony.HarmonyError:
        peer = None
    return Row(
        answer=name,
        tokens=len(tokens),
        rate=_rate(ours, tokens, repeat=repeat),
        quarter_rate=_rate(ours, tokens[: len(tokens) // 4], repeat=repeat),
        reference_rate=peer,
    )


def _rate(parse: Callable[[Sequence[int]], None], tokens: Sequence[int], *, repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        parse(tokens)
        times.append(time.perf_counter() - start)
    return len(tokens) / min(times)
