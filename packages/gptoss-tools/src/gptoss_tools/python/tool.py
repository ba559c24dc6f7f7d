"""python as a tool: code in, what it printed out.

```
tool = PythonTool()                       # stateless, in the first jail that works here
tool = PythonTool(stateful=True)          # a Jupyter session in the jail
messages = await tool.process(call)       # a call to `python`; its text is the code
outcome = tool.run("print(6 * 7)")        # the same without messages
```
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from openai_harmony import Message, ToolNamespaceConfig

from gptoss_harmony.errors import HarmonyError
from gptoss_harmony.tool import ToolReply
from gptoss_tools.python.kernel import Kernel
from gptoss_tools.python.limits import Limits
from gptoss_tools.python.sandbox import Outcome, Sandbox, open_sandbox, run_code
from gptoss_tools.python.selftest import check
from gptoss_tools.python.workspace import Workspace
from gptoss_tools.reply import answer, call_text, single_reply

_STATELESS = (
    "When you send a message containing Python code to python, it will be executed as a script in "
    "a fresh process, and what it writes to stdout and stderr will be returned to you. Nothing is "
    "kept between calls but the files in '/mnt/data'. You have to use print statements to access "
    "the output. The execution times out after {seconds} seconds. There is no internet access."
)


class PythonTool:
    """Runs the model's code in a jail.

    Args:
        sandbox: a jail, or the name of one: auto, bubblewrap, docker.
        stateful: keep a Jupyter session from call to call, as the model was trained with.
        limits: bounds of time, memory, processes, disk and output.
        folder: keep the files of /mnt/data here; None forgets them on `close`.

    Raises:
        SandboxError: no jail can be built here, or it failed its self-test.
        NotInstalled: an extra is missing.
    """

    def __init__(
        self,
        sandbox: Sandbox | str = "auto",
        *,
        stateful: bool = False,
        limits: Limits | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self._sandbox = open_sandbox(sandbox) if isinstance(sandbox, str) else sandbox
        if self._sandbox.name != "unsafe-host":
            check(self._sandbox)
        self._is_closed = False
        self._limits = limits or Limits()
        self._workspace = Workspace(folder)
        # One thread for all calls: they run in order, and a jail that dies with the thread that
        # made it lives as long as the tool does.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="python-tool")
        self._kernel = (
            Kernel(self._sandbox, self._workspace, limits=self._limits) if stateful else None
        )

    @property
    def name(self) -> str:
        """`python`, which is also the whole recipient of a call."""
        return "python"

    @property
    def workspace(self) -> Workspace:
        """The conversation's files."""
        return self._workspace

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        """The text that belongs to the mode; the stateful one is harmony's own."""
        return ToolNamespaceConfig(name=self.name, description=self._description(), tools=[])

    def instruction(self) -> str:
        """Nothing beyond the namespace."""
        return ""

    def _description(self) -> str:
        text = ToolNamespaceConfig.python().description or ""
        if self._kernel is None:
            purpose = text.split("\n\n")[0]
            return f"{purpose}\n\n{_STATELESS.format(seconds=f'{self._limits.seconds:g}')}"
        return text.replace("120.0 seconds", f"{float(self._limits.seconds)} seconds").replace(
            "Internet access for this session is UNKNOWN. Depends on the cluster.",
            "Internet access for this session is disabled.",
        )

    def run(self, code: str, *, cancel: threading.Event | None = None) -> Outcome:
        """Run code and wait; for programs without an event loop.

        Raises:
            SandboxError: the jail cannot be built any more.
        """
        return self._worker.submit(self._run, code, cancel or threading.Event()).result()

    def _run(self, code: str, cancel: threading.Event) -> Outcome:
        if cancel.is_set():
            return Outcome(output="", exit_code=None, stopped="execution cancelled")
        if self._kernel is not None:
            return self._kernel.run(code, cancel=cancel)
        return run_code(self._sandbox, code, self._workspace, limits=self._limits, cancel=cancel)

    def process(self, message: Message) -> ToolReply:
        """Run the code in a call; failures of the code and of the jail come back as text."""
        return single_reply(self._answer(message))

    async def _answer(self, message: Message) -> Message:
        if message.recipient is not None and "." in message.recipient.removeprefix("functions."):
            text = f"[ERROR] there is no function {message.recipient}; send the code to python"
            return answer(message, text, name=self.name)
        try:
            text = self.describe(await self._run_async(call_text(message)))
        except (HarmonyError, OSError) as error:
            text = f"[ERROR] {error}"
        return answer(message, text, name=self.name)

    async def _run_async(self, code: str) -> Outcome:
        """Run on the worker; cancelling kills the process tree before this returns."""
        cancel = threading.Event()
        running = asyncio.wrap_future(self._worker.submit(self._run, code, cancel))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            cancel.set()
            await asyncio.wait([running])
            raise

    def describe(self, outcome: Outcome) -> str:
        """What the model reads: the output, why it was stopped, or that there is none."""
        parts = [outcome.output.rstrip("\n")] if outcome.output.strip() else []
        if outcome.stopped is not None:
            parts.append(f"[ERROR] {outcome.stopped[0].upper()}{outcome.stopped[1:]}.")
        elif not parts and outcome.exit_code == 0:
            parts.append("[WARN] No output. Use print() to see a value.")
        elif outcome.exit_code not in (0, 1, None):
            parts.append(f"[ERROR] The process ended with exit code {outcome.exit_code}.")
        elif not parts:
            parts.append("[ERROR] The process failed without a message.")
        return "\n".join(parts)

    def close(self) -> None:
        """End the session and remove temporary files. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._kernel is not None:
            self._worker.submit(self._kernel.close).result()
        self._worker.shutdown()
        self._workspace.close()
