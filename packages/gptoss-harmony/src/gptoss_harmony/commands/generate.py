"""`gptoss generate CHECKPOINT -p PROMPT`: one answer from any engine, printed as it comes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import closing
from typing import TextIO

from gptoss_harmony.answer_printer import HarmonyPrinter, Printer, RawPrinter
from gptoss_harmony.answer_stats import AnswerStats, peak_resident_bytes
from gptoss_harmony.conversation import developer_message, system_message, user_message
from gptoss_harmony.encoding import Encoding, load_encoding
from gptoss_harmony.engine import Engine, Generation, Prompt, Sampling
from gptoss_harmony.errors import UsageError
from gptoss_harmony.options import add_engine_argument, count, engine_options, resolve_engine
from gptoss_harmony.plugins import open_engine

HELP = "answer one prompt, printing tokens as they come"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; the letters are the ones that users of the original know."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="an original/ or Hugging Face folder, a model.bin, a hub id, or nano",
    )
    parser.add_argument(
        "-p", "--prompt", default="How are you?", help="the question; - reads standard input"
    )
    parser.add_argument(
        "-t", "--temperature", type=float, default=0.0, help="0, the default, is greedy"
    )
    parser.add_argument(
        "-l", "--limit", type=count, default=0, help="most tokens to generate; 0: the whole context"
    )
    add_engine_argument(parser, "-b", "--backend")
    parser.add_argument("--top-p", type=float, default=1.0, help="nucleus sampling (default 1.0)")
    parser.add_argument("--seed", type=int, help="fixes the random choices")
    parser.add_argument(
        "--reasoning-effort",
        choices=["low", "medium", "high"],
        default="medium",
        help="how much analysis to ask for (default medium)",
    )
    parser.add_argument("--developer-message", default="", help="instructions to the model")
    parser.add_argument(
        "--raw", action="store_true", help="plain text continued as it is, without harmony"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with messages, tokens and stats"
    )


def run(args: argparse.Namespace) -> int:
    """Open the engine, answer, print, and report how fast it was."""
    encoding = load_encoding()
    prompt = make_prompt(args, encoding)
    make_sampling(args, encoding)  # says what is wrong with a flag before weights are loaded
    name, sentence = resolve_engine(args.engine)
    if not args.json:
        print(sentence, file=sys.stderr)
    with closing(open_engine(name, args.checkpoint, **engine_options(args))) as engine:
        return answer(args, encoding, engine, prompt)


def make_prompt(args: argparse.Namespace, encoding: Encoding) -> Prompt:
    """Render the question as a harmony conversation, or encode it as it is with `--raw`."""
    text = _standard_input() if args.prompt == "-" else args.prompt
    if args.raw:
        tokens = encoding.encode(text, allowed_special="all")
        if not tokens:
            raise UsageError("--raw needs a prompt with some text; give one with -p")
        return Prompt(tuple(tokens))
    messages = [system_message(effort=args.reasoning_effort)]
    if args.developer_message:
        messages.append(developer_message(instructions=args.developer_message))
    messages.append(user_message(text))
    return encoding.render_prompt(messages)


def make_sampling(args: argparse.Namespace, encoding: Encoding) -> Sampling:
    """Return what the flags say about choosing tokens; a raw text ends at any end of a message."""
    return Sampling(
        max_tokens=args.limit or None,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
        stop_tokens=tuple(encoding.stop_tokens()) if args.raw else None,
    )


def answer(args: argparse.Namespace, encoding: Encoding, engine: Engine, prompt: Prompt) -> int:
    """Generate, print as tokens come, and end with the statistics."""
    sampling = make_sampling(args, encoding)
    out, notes = (None, None) if args.json else (sys.stdout, sys.stderr)
    printer: Printer = (
        RawPrinter(encoding, out)
        if args.raw
        else HarmonyPrinter(encoding, out, notes, dim=_shows_faint_text(notes))
    )
    stats = AnswerStats(prompt_tokens=len(prompt.tokens))
    tokens = follow(engine.generate(prompt, sampling), printer, stats)
    shown = printer.finish()
    stats.peak_memory_bytes = engine.stats().peak_memory_bytes or peak_resident_bytes()
    if args.json:
        spec = {"engine": engine.spec.name, "model": engine.spec.model_id}
        print(json.dumps({**spec, **shown, "tokens": tokens, "stats": stats.as_dict()}, indent=2))
    else:
        print(stats.sentence(), file=sys.stderr)
    return 0 if stats.finish_reason != "cancelled" else 130


def follow(generation: Generation, printer: Printer, stats: AnswerStats) -> list[int]:
    """Show each token as it comes.

    The first Ctrl-C stops the answer and keeps what came. A second one, or an output that nobody
    reads any more, leaves at once; the engine then stops too, instead of finishing in vain.
    """
    tokens: list[int] = []
    interrupted = False
    try:
        while True:
            try:
                stats.cached_tokens = generation.cached_tokens
                for output in generation:
                    stats.count(output)
                    if output.token is not None:
                        tokens.append(output.token)
                        printer.show(output.token)
                return tokens
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                generation.cancel()
    except BaseException:
        generation.cancel()
        raise


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"standard input is not {error.encoding} text (byte {error.start}): convert it first"
        ) from error


def _shows_faint_text(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal with styles; NO_COLOR and TERM=dumb say that it has none."""
    if stream is None or not stream.isatty() or os.environ.get("NO_COLOR"):
        return False
    return os.environ.get("TERM") != "dumb"
