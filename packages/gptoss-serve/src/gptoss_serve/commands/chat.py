"""`gptoss chat`: talk to a model in the terminal."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from gptoss_harmony import Sampling, load_encoding
from gptoss_harmony.errors import UsageError
from gptoss_harmony.options import add_engine_argument, engine_options, resolve_engine
from gptoss_harmony.plugins import open_engine
from gptoss_serve.chat.dialogue import EFFORTS, Dialogue
from gptoss_serve.chat.display import Display
from gptoss_serve.chat.loop import ChatLoop, piped_lines, typed_lines
from gptoss_serve.chat.raw import TappedEngine
from gptoss_serve.session import Session
from gptoss_serve.tool_options import add_tool_options, make_toolbox
from gptoss_serve.toolbox import Toolbox
from gptoss_serve.upstream.options import (
    add_upstream_options,
    upstream_sentence,
    upstream_session,
)
from gptoss_serve.upstream.session import UpstreamSession

if TYPE_CHECKING:
    from prompt_toolkit.history import History

HELP = "talk to a model in the terminal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; the letters are the original's."""
    parser.add_argument(
        "checkpoint",
        metavar="FILE",
        nargs="?",
        default="nano",
        help="an original/ or Hugging Face folder, a model.bin, a hub id, or nano (default nano)",
    )
    parser.add_argument(
        "-r",
        "--reasoning-effort",
        choices=EFFORTS,
        default="medium",
        help="how long to think (default medium)",
    )
    parser.add_argument(
        "-a", "--apply-patch", action="store_true", help="let the model edit files in this folder"
    )
    parser.add_argument("-b", "--browser", action="store_true", help="let the model browse")
    parser.add_argument(
        "--show-browser-results", action="store_true", help="print what the browser read"
    )
    parser.add_argument("-p", "--python", action="store_true", help="let the model run code")
    parser.add_argument("--developer-message", default="", help="instructions to the model")
    parser.add_argument(
        "-c", dest="context_tokens", type=int, metavar="CONTEXT", help="positions of the context"
    )
    parser.add_argument("--raw", action="store_true", help="show tokens as they are, markers too")
    add_engine_argument(parser, "--backend")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (default 1)")
    parser.add_argument("--top-p", type=float, default=1.0, help="nucleus sampling (default 1)")
    parser.add_argument("--seed", type=int, help="fixes the random choices")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="most tokens of an answer (default: any)"
    )
    add_upstream_options(parser)
    add_tool_options(parser)


def run(args: argparse.Namespace) -> int:
    """Open the engine, or find the upstream, and talk."""
    sampling = Sampling(
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
    )
    root = "." if args.apply_patch else None
    toolbox = make_toolbox(args, browser=args.browser, python=args.python, patch_root=root)
    if args.upstream:
        session = _upstream(args)
        print(upstream_sentence(session), file=sys.stderr)
        asyncio.run(talk(args, session, toolbox, sampling))
        return 0
    name, sentence = resolve_engine(args.engine)
    options = engine_options(args)
    if args.context_tokens is not None:
        options["context"] = args.context_tokens
    print(sentence, file=sys.stderr)
    with closing(open_engine(name, args.checkpoint, **options)) as engine:
        if args.raw:
            engine = TappedEngine(engine, load_encoding(), _write)  # type: ignore[assignment]
        asyncio.run(talk(args, Session(engine), toolbox, sampling))
    return 0


def _upstream(args: argparse.Namespace) -> UpstreamSession:
    """The session of an upstream, which has no tokens to show and a context of its own."""
    if args.raw or args.context_tokens is not None:
        raise UsageError("--raw and -c are about an engine's tokens; leave them out of --upstream")
    return upstream_session(args)


async def talk(
    args: argparse.Namespace, session: Session, toolbox: Toolbox, sampling: Sampling
) -> None:
    """Set the loop up and run it to the end of the input."""
    console = Console(soft_wrap=True)
    display = Display(console, show_results=args.show_browser_results)
    dialogue = Dialogue(effort=args.reasoning_effort, instructions=args.developer_message)
    tools = await toolbox.open(toolbox.names)
    try:
        loop = ChatLoop(
            session,
            dialogue,
            tools=tools,
            sampling=sampling,
            show=None if args.raw else display.show,
            console=console,
        )
        await loop.run(_lines(console))
    finally:
        await toolbox.close(tools)
        await session.close()


def _lines(console: Console) -> AsyncIterator[str]:
    if not sys.stdin.isatty():
        return piped_lines(sys.stdin.readline)
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()
    keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
    console.print("[dim]/help lists commands; Ctrl-D leaves[/dim]", highlight=False)
    session: PromptSession[str] = PromptSession(
        "> ", history=_history(console), key_bindings=keys, prompt_continuation="  "
    )
    return typed_lines(session.prompt_async)


def _history(console: Console) -> History:
    """Earlier lines, for this user's eyes only; where they cannot be kept, that is said."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    file = state / "gptoss" / "history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        with file.open("ab"):
            pass
    except OSError as error:
        console.print(f"[dim]no history is kept: {escape(str(error))}[/dim]", highlight=False)
        return InMemoryHistory()
    return FileHistory(str(file))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
