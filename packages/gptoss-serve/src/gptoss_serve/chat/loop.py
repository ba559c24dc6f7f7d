"""Read a line, obey or ask, show the answer, again; Ctrl-C stops the turn, Ctrl-D leaves."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gptoss_harmony import Message, Sampling, Tool, assistant_message
from gptoss_harmony.errors import HarmonyError
from gptoss_serve.chat.dialogue import EFFORTS, Dialogue
from gptoss_serve.events import Event, PartDelta, TurnDone, Usage
from gptoss_serve.session import Session

HELP_TEXT = """\
/help            this
/effort LEVEL    low, medium or high
/system TEXT     set the developer message; without TEXT show it
/tools           list the tools
/tokens          how many tokens the conversation and the last turn have
/undo            take back the last question and its answer
/save FILE       write the conversation
/load FILE       go on with a saved one
Esc Enter        a new line; Ctrl-C stops the answer; Ctrl-D leaves"""


class ChatLoop:
    """One chat.

    Args:
        session: answers.
        dialogue: the conversation.
        tools: those that run here.
        sampling: how to sample.
        show: gets every event; None shows nothing but notes.
        console: for everything else.
    """

    def __init__(
        self,
        session: Session,
        dialogue: Dialogue,
        *,
        tools: Sequence[Tool],
        sampling: Sampling,
        show: Callable[[Event], None] | None,
        console: Console,
    ) -> None:
        self._session = session
        self._dialogue = dialogue
        self._tools = tools
        self._sampling = sampling
        self._show = show
        self._console = console
        self._usage = Usage()

    async def run(self, lines: AsyncIterator[str]) -> None:
        """Obey or answer each line."""
        async for line in lines:
            if not line.strip():
                continue
            try:
                if line.startswith("/"):
                    self._obey(line)
                else:
                    await self._ask(line)
            except HarmonyError as error:
                self._console.print(Text(str(error), style="red"), highlight=False)

    def _obey(self, line: str) -> None:
        name, _, rest = line[1:].partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: self._say(HELP_TEXT),
            "effort": self._set_effort,
            "system": self._set_system,
            "tools": lambda _: self._say("\n".join(t.name for t in self._tools) or "no tools"),
            "tokens": lambda _: self._count_tokens(),
            "undo": lambda _: self._undo(),
            "save": lambda path: self._file(self._dialogue.save, path, "saved"),
            "load": lambda path: self._file(self._dialogue.load, path, "loaded"),
        }
        command = commands.get(name)
        if command is None:
            self._say(f"there is no /{name}; /help lists what there is")
        else:
            command(rest.strip())

    def _set_effort(self, level: str) -> None:
        if level in EFFORTS:
            self._dialogue.effort = EFFORTS[EFFORTS.index(level)]
        self._say(f"effort is {self._dialogue.effort} (low, medium, high)")

    def _set_system(self, text: str) -> None:
        if text:
            self._dialogue.instructions = text
        self._say(self._dialogue.instructions or "there is no developer message")

    def _count_tokens(self) -> None:
        turn = self._dialogue.turn(self._tools, self._sampling)
        prompt = self._session.encoding.render_prompt(turn.messages, style=turn.style)
        count = len(prompt.tokens)
        usage, most = self._usage, self._session.engine.spec.context_length
        self._say(
            f"conversation {count} of {most} tokens; last turn: {usage.input_tokens} in "
            f"({usage.cached_tokens} cached), {usage.output_tokens} out "
            f"({usage.reasoning_tokens} reasoning)"
        )

    def _undo(self) -> None:
        self._say("taken back" if self._dialogue.undo() else "there is nothing to take back")

    def _file(self, action: Callable[[Path], None], path: str, done: str) -> None:
        if not path:
            self._say("name a file")
            return
        action(Path(path).expanduser())
        self._say(f"{done} {path}")

    async def _ask(self, text: str) -> None:
        self._dialogue.say(text)
        partial: list[str] = []
        task = asyncio.ensure_future(self._answer(partial))
        with _interrupts(task):
            try:
                self._dialogue.answer(await task)
            except asyncio.CancelledError:
                if partial:
                    self._dialogue.answer([assistant_message("".join(partial))])
                self._tell(TurnDone("cancelled", Usage(), ()))
            except HarmonyError:
                self._dialogue.undo()
                raise

    async def _answer(self, partial: list[str]) -> Sequence[Message]:
        turn = self._dialogue.turn(self._tools, self._sampling)
        messages: Sequence[Message] = ()
        async with aclosing(self._session.respond(turn)) as events:
            async for event in events:
                self._tell(event)
                if isinstance(event, PartDelta) and event.kind == "answer":
                    partial.append(event.text)
                if isinstance(event, TurnDone):
                    messages, self._usage = event.messages, event.usage
        return messages

    def _tell(self, event: Event) -> None:
        if self._show is not None:
            self._show(event)
        elif isinstance(event, TurnDone):
            self._say("\n[stopped]" if event.reason == "cancelled" else "")

    def _say(self, text: str) -> None:
        whole_lines = not self._console.is_terminal
        note = Text(text, style="magenta")
        self._console.print(note, soft_wrap=whole_lines, highlight=False)


class _interrupts:
    """While in here Ctrl-C cancels a task instead of ending the program."""

    def __init__(self, task: asyncio.Future[Any]) -> None:
        self._task = task
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        # Windows and threads other than the main one have no signal handlers.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            self._loop.add_signal_handler(signal.SIGINT, self._task.cancel)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            self._loop.remove_signal_handler(signal.SIGINT)


async def typed_lines(ask: Callable[[], Awaitable[str]]) -> AsyncIterator[str]:
    """What a person types, until Ctrl-D; Ctrl-C at the prompt clears the line."""
    while True:
        try:
            yield await ask()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


async def piped_lines(read: Callable[[], str]) -> AsyncIterator[str]:
    """Lines of a pipe or file, each a question or a command."""
    while line := await asyncio.to_thread(read):
        yield line.rstrip("\n")
