"""The flags about tools that `chat` and `serve` share, and the tools that they come to."""

from __future__ import annotations

import argparse
from typing import Any

from gptoss_harmony import Tool
from gptoss_harmony.errors import UsageError
from gptoss_serve.toolbox import Toolbox, ToolMaker, ToolSetup
from gptoss_tools import (
    ApplyPatchTool,
    CorpusBackend,
    ExaBackend,
    PythonTool,
    SimpleBrowserTool,
    WebBackend,
    YouComBackend,
)

BROWSERS = ("web", "corpus", "exa", "youcom")


def add_tool_options(parser: argparse.ArgumentParser) -> None:
    """Declare where pages come from and where code runs."""
    group = parser.add_argument_group("tools")
    group.add_argument(
        "--browser-backend",
        choices=BROWSERS,
        help="where pages come from (default: corpus with --browser-index, else web)",
    )
    group.add_argument(
        "--browser-index", metavar="FILE", help="an index made by: gptoss tool browser index"
    )
    group.add_argument(
        "--python-jail",
        choices=("auto", "bubblewrap", "docker"),
        default="auto",
        help="what keeps the model's code in (default auto)",
    )
    group.add_argument(
        "--python-stateful", action="store_true", help="keep a Jupyter session between calls"
    )


def make_toolbox(
    args: argparse.Namespace, *, browser: bool, python: bool, patch_root: str | None = None
) -> Toolbox:
    """The tools that were asked for.

    Raises:
        HarmonyError: a tool cannot be made here.
    """
    makers: dict[str, ToolMaker] = {}
    if browser:
        makers["browser"] = _browser_maker(args)
    if python:
        makers["python"] = _python_maker(args)
    if patch_root is not None:
        makers["apply_patch"] = lambda _: ApplyPatchTool(patch_root)
    return Toolbox(makers)


def _browser_maker(args: argparse.Namespace) -> ToolMaker:
    name = args.browser_backend or ("corpus" if args.browser_index else "web")
    backend: Any
    if name == "corpus":
        if not args.browser_index:
            raise UsageError(
                "the corpus backend needs --browser-index FILE (gptoss tool browser index DIR)"
            )
        backend = CorpusBackend(args.browser_index)
    else:
        backend = {"web": WebBackend, "exa": ExaBackend, "youcom": YouComBackend}[name]()

    def make(setup: ToolSetup) -> Tool:
        return SimpleBrowserTool(backend, tool_state=setup.state)

    return make


def _python_maker(args: argparse.Namespace) -> ToolMaker:
    def make(_: ToolSetup) -> Tool:
        return PythonTool(args.python_jail, stateful=args.python_stateful)

    make(ToolSetup()).close()  # type: ignore[attr-defined]  # say at once if no jail can be built
    return make
