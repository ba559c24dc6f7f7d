"""`gptoss generate CHECKPOINT -p PROMPT`: one answer from any engine, printed as it comes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TextIO

from gptoss_harmony.conversation import Role, developer_message, system_message, user_message
from gptoss_harmony.encoding import Encoding, load_encoding
from gptoss_harmony.engine import Engine, Generation, Prompt, Sampling, TokenOutput
from gptoss_harmony.errors import UsageError
from gptoss_harmony.events import MessageDone, MessageStarted, Repaired, TextDelta
from gptoss_harmony.options import add_engine_argument, engine_options, resolve_engine
from gptoss_harmony.parse import StreamParser
from gptoss_harmony.plugins import open_engine

HELP = "answer one prompt, printing tokens as they come"
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


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
        "-l", "--limit", type=int, default=0, help="most tokens to generate; 0: the whole context"
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


@dataclass(kw_only=True)
class Stats:
    """How fast an answer came; times in seconds, memory in bytes."""

    prompt_tokens: int
    cached_tokens: int = 0
    generated_tokens: int = 0
    finish_reason: str | None = None
    time_to_first_token: float | None = None
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    started: float = field(default_factory=time.perf_counter)

    @property
    def tokens_per_second(self) -> float | None:
        """Rate after the first token, or None for shorter answers."""
        if self.time_to_first_token is None or self.generated_tokens < 2:
            return None
        return (self.generated_tokens - 1) / max(self.seconds - self.time_to_first_token, 1e-9)

    def count(self, output: TokenOutput) -> None:
        """Take in one output."""
        self.seconds = time.perf_counter() - self.started
        self.finish_reason = output.finish_reason
        if output.token is not None:
            self.generated_tokens += 1
            if self.time_to_first_token is None:
                self.time_to_first_token = self.seconds

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        values = asdict(self) | {"tokens_per_second": self.tokens_per_second}
        del values["started"]
        return values

    def sentence(self) -> str:
        """For people."""
        rate = f", {self.tokens_per_second:.1f} tok/s" if self.tokens_per_second else ""
        first = self.time_to_first_token
        wait = f", first token after {first:.3f} s" if first is not None else ""
        return (
            f"{self.prompt_tokens} prompt tokens ({self.cached_tokens} cached), "
            f"{self.generated_tokens} generated{wait}{rate}, "
            f"peak memory {self.peak_memory_bytes / 2**30:.2f} GiB, ended by {self.finish_reason}"
        )


class Printer(Protocol):
    """Shows tokens as they come."""

    def show(self, token: int) -> None:
        """Print what a token adds."""
        ...

    def finish(self) -> dict[str, Any]:
        """Print the rest; return what `--json` adds about the answer."""
        ...


class HarmonyPrinter:
    """Prints the final channel to `out` and everything else, dimmed, to `notes`."""

    def __init__(self, encoding: Encoding, out: TextIO | None, notes: TextIO | None) -> None:
        self._parser = StreamParser(encoding, role=Role.ASSISTANT)
        self._out = out
        self._notes = notes
        self._current: TextIO | None = None

    def show(self, token: int) -> None:
        """Print what a token adds to the answer."""
        for event in self._parser.process(token):
            self._print(event)

    def finish(self) -> dict[str, Any]:
        """Flush the parser and return the messages."""
        for event in self._parser.finish():
            self._print(event)
        return {"messages": [message.to_dict() for message in self._parser.messages]}

    def _print(self, event: object) -> None:
        if isinstance(event, MessageStarted):
            answer = event.channel in (None, "final") and event.recipient in (None, "all")
            self._current = self._out if answer else self._notes
            if not answer:
                to = f" to {event.recipient}" if event.recipient else ""
                self._write(self._notes, f"{self._style(DIM)}[{event.channel}{to}] ")
        elif isinstance(event, TextDelta):
            self._write(self._current, event.text)
        elif isinstance(event, MessageDone):
            self._write(self._current, f"{self._style(PLAIN)}\n")
        elif isinstance(event, Repaired):
            self._write(self._notes, f"[repaired: {event.problem}]\n")

    def _style(self, code: str) -> str:
        notes = self._notes
        return code if notes is not None and notes.isatty() and self._current is notes else ""

    def _write(self, stream: TextIO | None, text: str) -> None:
        if stream is not None:
            stream.write(text)
            stream.flush()


class RawPrinter:
    """Prints the continuation of plain text, special tokens spelled out."""

    def __init__(self, encoding: Encoding, out: TextIO | None) -> None:
        self._encoding = encoding
        self._out = out
        self._tokens: list[int] = []
        self._shown = ""

    def show(self, token: int) -> None:
        """Print what a token adds, holding back the bytes of an unfinished character."""
        self._tokens.append(token)
        text = self._encoding.decode(self._tokens)
        if text.endswith("\N{REPLACEMENT CHARACTER}") and len(self._tokens) < 4:
            return
        if self._out is not None:
            self._out.write(text)
            self._out.flush()
        self._shown += text
        self._tokens.clear()

    def finish(self) -> dict[str, Any]:
        """Print what was held back and a last line end."""
        rest = self._encoding.decode(self._tokens) if self._tokens else ""
        if self._out is not None:
            self._out.write(rest + "\n")
        return {"text": self._shown + rest}


def run(args: argparse.Namespace) -> int:
    """Open the engine, answer, print, and report how fast it was."""
    encoding = load_encoding()
    prompt = make_prompt(args, encoding)
    name, sentence = resolve_engine(args.engine)
    if not args.json:
        print(sentence, file=sys.stderr)
    with closing(open_engine(name, args.checkpoint, **engine_options(args))) as engine:
        return answer(args, encoding, engine, prompt)


def make_prompt(args: argparse.Namespace, encoding: Encoding) -> Prompt:
    """Render the question as a harmony conversation, or encode it as it is with `--raw`."""
    text = sys.stdin.read() if args.prompt == "-" else args.prompt
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


def answer(args: argparse.Namespace, encoding: Encoding, engine: Engine, prompt: Prompt) -> int:
    """Generate, print as tokens come, and end with the statistics."""
    sampling = Sampling(
        max_tokens=args.limit or None,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
        stop_tokens=tuple(sorted(encoding.stop_tokens())) if args.raw else None,
    )
    out, notes = (None, None) if args.json else (sys.stdout, sys.stderr)
    printer: Printer = (
        RawPrinter(encoding, out) if args.raw else HarmonyPrinter(encoding, out, notes)
    )
    stats = Stats(prompt_tokens=len(prompt.tokens))
    tokens = follow(engine.generate(prompt, sampling), printer, stats)
    shown = printer.finish()
    stats.peak_memory_bytes = engine.stats().peak_memory_bytes or peak_resident_bytes()
    if args.json:
        spec = {"engine": engine.spec.name, "model": engine.spec.model_id}
        print(json.dumps({**spec, **shown, "tokens": tokens, "stats": stats.as_dict()}, indent=2))
    else:
        print(stats.sentence(), file=sys.stderr)
    return 0 if stats.finish_reason != "cancelled" else 130


def follow(generation: Generation, printer: Printer, stats: Stats) -> list[int]:
    """Show each token as it comes; Ctrl-C stops the answer and keeps what came."""
    tokens: list[int] = []
    stats.cached_tokens = generation.cached_tokens
    while True:
        try:
            output = next(generation, None)
        except KeyboardInterrupt:
            generation.cancel()
            continue
        if output is None:
            return tokens
        stats.count(output)
        if output.token is not None:
            tokens.append(output.token)
            printer.show(output.token)


def peak_resident_bytes() -> int:
    """Most memory this process ever held; 0 where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
