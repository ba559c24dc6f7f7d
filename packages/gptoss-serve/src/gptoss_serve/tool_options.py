"""The flags about tools that `chat` and `serve` share, and the tools that they come to."""

from __future__ import annotations

import argparse
from typing import Any

from gptoss_harmony import Tool
from gptoss_harmony.errors import UsageError
from gptoss_serve.browsing import ServedBrowser
from gptoss_serve.containers import Containers
from gptoss_serve.toolbox import Toolbox, ToolMaker, ToolSetup
from gptoss_tools import (
    ApplyPatchTool,
    CorpusBackend,
    ExaBackend,
    PythonTool,
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


def add_serving_options(parser: argparse.ArgumentParser) -> None:
    """Declare what only a server needs: whose code is kept, and whom it may call."""
    group = parser.add_argument_group("tools of responses")
    group.add_argument(
        "--python-minutes",
        type=float,
        default=20.0,
        metavar="N",
        help="keep the files (and, if stateful, the variables) of unused python (default 20)",
    )
    group.add_argument(
        "--python-containers",
        type=int,
        default=32,
        metavar="N",
        help="how many of them to keep at once (default 32)",
    )
    group.add_argument(
        "--mcp-allow",
        action="append",
        default=[],
        metavar="HOST[,HOST]",
        help="MCP servers that clients may have us call: HOST, HOST:PORT, or any for all public "
        "ones (default: none)",
    )
    group.add_argument(
        "--mcp-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="longest wait for an answer of an MCP server (default 60)",
    )


def make_toolbox(
    args: argparse.Namespace,
    *,
    browser: bool,
    python: bool,
    patch_root: str | None = None,
    keep: bool = False,
) -> Toolbox:
    """The tools that were asked for.

    Args:
        args: the flags.
        browser: offer the browser.
        python: offer python.
        patch_root: offer apply_patch below this folder.
        keep: let python live on from one response to the next, as the flags of
            `add_serving_options` say.

    Raises:
        HarmonyError: a tool cannot be made here.
    """
    makers: dict[str, ToolMaker] = {}
    containers = _containers(args) if python and keep else None
    if browser:
        makers["browser"] = _browser_maker(args)
    if python:
        makers["python"] = _python_maker(args) if containers is None else containers.open
    if patch_root is not None:
        makers["apply_patch"] = lambda _: ApplyPatchTool(patch_root)
    offline = ["browser"] if _backend_name(args) == "corpus" else []
    return Toolbox(makers, offline=offline, containers=containers)


def _backend_name(args: argparse.Namespace) -> str:
    return args.browser_backend or ("corpus" if args.browser_index else "web")


def _containers(args: argparse.Namespace) -> Containers:
    if args.python_minutes <= 0 or args.python_containers < 1:
        raise UsageError("--python-minutes must be > 0 and --python-containers >= 1")

    def make() -> PythonTool:
        return PythonTool(args.python_jail, stateful=args.python_stateful)

    seconds = args.python_minutes * 60
    return Containers(make, seconds=seconds, most=args.python_containers)


def _browser_maker(args: argparse.Namespace) -> ToolMaker:
    name = _backend_name(args)
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
        return ServedBrowser(backend, setup)

    return make


def _python_maker(args: argparse.Namespace) -> ToolMaker:
    def make(_: ToolSetup) -> Tool:
        return PythonTool(args.python_jail, stateful=args.python_stateful)

    make(ToolSetup()).close()  # type: ignore[attr-defined]  # say at once if no jail can be built
    return make
