"""`gptoss tool`: the tools by hand, and as MCP servers."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from gptoss_harmony.errors import UsageError
from gptoss_tools.browser.backends.corpus import BASE_URL, CorpusBackend, build_index
from gptoss_tools.browser.backends.exa import ExaBackend
from gptoss_tools.browser.backends.keys import api_key
from gptoss_tools.browser.backends.protocol import Backend
from gptoss_tools.browser.backends.web import WebBackend
from gptoss_tools.browser.backends.youcom import YouComBackend
from gptoss_tools.browser.tool import SimpleBrowserTool
from gptoss_tools.errors import PatchError
from gptoss_tools.patch.apply import Report, apply_patch, undo_patch
from gptoss_tools.patch.tool import ApplyPatchTool, patch_text
from gptoss_tools.python.host import UnsafeHostSandbox
from gptoss_tools.python.limits import Limits, MiB
from gptoss_tools.python.sandbox import Sandbox, open_sandbox
from gptoss_tools.python.tool import PythonTool

HELP = "run browser, python and apply_patch by hand, or serve them over MCP"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tools and their flags."""
    tools = parser.add_subparsers(title="tools", metavar="TOOL", required=True)
    _add_browser(tools)
    _add_python(tools)
    _add_apply_patch(tools)
    _add_serve(tools)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; 0 done, 1 the work failed, 2 misuse (raised)."""
    action: Callable[[argparse.Namespace], int] = args.action
    return action(args)


def _sub(
    parsers: Any, name: str, action: Callable[[argparse.Namespace], int] | None, text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parsers.add_parser(
        name, help=text, description=text, allow_abbrev=False
    )
    if action is not None:
        parser.set_defaults(action=action)
        parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


# browser


def _add_browser(tools: Any) -> None:
    browser = _sub(tools, "browser", None, "search, open and find in pages; index a folder")
    functions = browser.add_subparsers(title="functions", metavar="FUNCTION", required=True)
    search = _sub(functions, "search", _browse, "search with the backend")
    search.add_argument("query", help="what to look for")
    search.add_argument("--topn", type=int, default=10, metavar="N", help="results (default 10)")
    page = _sub(functions, "open", _browse, "open a URL or a link, or scroll")
    page.add_argument("id", nargs="?", default="-1", help="URL or link number; none scrolls")
    page.add_argument("--loc", type=int, default=-1, metavar="LINE", help="first line to show")
    page.add_argument("--num-lines", type=int, default=-1, metavar="N", help="lines to show")
    page.add_argument("--view-source", action="store_true", help="show the source instead")
    find = _sub(functions, "find", _browse, "find text on a page")
    find.add_argument("pattern", help="text within a line, in any letter case")
    for parser in (page, find):
        parser.add_argument("--cursor", type=int, default=-1, metavar="N", help="page to act on")
    for name, parser in (("search", search), ("open", page), ("find", find)):
        parser.set_defaults(function=name)
        parser.add_argument(
            "--state", metavar="FILE", help="go on with the conversation kept in this file"
        )
        _add_backend(parser)
    index = _sub(functions, "index", _index, "make or refresh the index of a folder of documents")
    index.add_argument("folder", metavar="DIR", help="HTML, Markdown, text and PDF files")
    index.add_argument("--output", metavar="FILE", help="the index (default DIR.db)")
    index.add_argument("--base-url", default=BASE_URL, metavar="URL", help="URL of the folder")


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=("web", "corpus", "exa", "youcom"),
        help="where pages come from (default: corpus with --index, else web)",
    )
    parser.add_argument("--index", metavar="FILE", help="index for the corpus backend")
    parser.add_argument(
        "--allow-private", action="store_true", help="web: also open private addresses"
    )


def _backend(args: argparse.Namespace) -> Backend:
    name = args.backend or ("corpus" if args.index else "web")
    if name == "corpus":
        if not args.index:
            raise UsageError("the corpus backend needs --index FILE (gptoss tool browser index)")
        return CorpusBackend(args.index)
    if name == "exa":
        return ExaBackend(api_key=api_key(None, "EXA_API_KEY", "Exa"))
    if name == "youcom":
        return YouComBackend(api_key=api_key(None, "YDC_API_KEY", "You.com"))
    return WebBackend(allow_private=args.allow_private)


def _browse(args: argparse.Namespace) -> int:
    backend = _backend(args)
    try:
        return _browse_with(args, backend)
    finally:
        if isinstance(backend, CorpusBackend):
            backend.close()


def _browse_with(args: argparse.Namespace, backend: Backend) -> int:
    saved = Path(args.state) if args.state else None
    state = _load_state(saved) if saved and saved.exists() else None
    tool = SimpleBrowserTool(backend=backend, tool_state=state)
    names = {
        "search": ("query", "topn"),
        "open": ("id", "cursor", "loc", "num_lines", "view_source"),
        "find": ("pattern", "cursor"),
    }[args.function]
    before = len(tool.get_tool_state()["stack"])
    arguments = {name: getattr(args, name) for name in names}
    text = asyncio.run(tool.call(args.function, arguments))
    shown = len(tool.get_tool_state()["stack"]) > before
    if saved:
        saved.write_text(json.dumps(tool.get_tool_state()), encoding="utf-8")
    _print(args, {"ok": shown, "text": text}, text)
    return 0 if shown else 1


def _load_state(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not a saved conversation; name another file") from error


def _index(args: argparse.Namespace) -> int:
    output = args.output or f"{args.folder.rstrip('/')}.db"
    report = build_index(args.folder, output, base_url=args.base_url)
    summary = {
        "index": output,
        "added": report.added,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "skipped": report.skipped,
    }
    lines = [
        f"{output}: {report.added} added, {report.unchanged} unchanged, {report.removed} removed",
        *(f"skipped {name}: {reason}" for name, reason in report.skipped.items()),
    ]
    _print(args, summary, "\n".join(lines))
    return 0


# python


def _add_python(tools: Any) -> None:
    parser = _sub(tools, "python", _python, "run Python code in a jail")
    parser.add_argument("file", nargs="?", help="file with the code; - or none reads it from stdin")
    parser.add_argument("-c", "--code", help="the code itself")
    _add_jail(parser)


def _add_jail(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    parser.add_argument(
        "--jail", choices=("auto", "bubblewrap", "docker"), default="auto", help="kind of jail"
    )
    parser.add_argument("--stateful", action="store_true", help="run it in a Jupyter session")
    parser.add_argument(
        "--timeout", type=float, default=limits.seconds, metavar="S", help="seconds for a call"
    )
    parser.add_argument(
        "--memory", type=int, default=limits.memory_bytes // MiB, metavar="MIB", help="memory"
    )
    parser.add_argument("--data", metavar="DIR", help="keep the files of /mnt/data here")
    parser.add_argument("--image", metavar="IMAGE", help="image of the Docker jail")
    parser.add_argument(
        "--unsafe-host", action="store_true", help="no jail at all: the code can do all you can"
    )


def _sandbox(args: argparse.Namespace) -> Sandbox:
    if args.unsafe_host:
        return UnsafeHostSandbox(i_know_this_is_unsafe=True)
    if args.image:
        from gptoss_tools.python.docker import DockerSandbox

        return DockerSandbox(image=args.image)
    return open_sandbox(args.jail)


def _python_tool(args: argparse.Namespace, sandbox: Sandbox) -> PythonTool:
    limits = Limits(seconds=args.timeout, memory_bytes=args.memory * MiB)
    return PythonTool(sandbox, stateful=args.stateful, limits=limits, folder=args.data)


def _python(args: argparse.Namespace) -> int:
    code = args.code if args.code is not None else _read(args.file)
    with closing(_python_tool(args, _sandbox(args))) as tool:
        outcome = tool.run(code)
        text = tool.describe(outcome)
    result = {
        "ok": outcome.exit_code == 0,
        "exit_code": outcome.exit_code,
        "stopped": outcome.stopped,
        "output": outcome.output,
    }
    _print(args, result, text)
    return 0 if outcome.exit_code == 0 else 1


# apply_patch


def _add_apply_patch(tools: Any) -> None:
    parser = _sub(tools, "apply_patch", _apply_patch, "apply a patch to a folder, all or nothing")
    parser.add_argument("file", nargs="?", help="file with the patch; - or none reads stdin")
    parser.add_argument("--root", default=".", metavar="DIR", help="the folder (default .)")
    parser.add_argument("--dry-run", action="store_true", help="check only, write nothing")
    parser.add_argument("--undo", action="store_true", help="take the newest patch back")
    parser.add_argument(
        "--final-newline", action="store_true", help="end added files with a newline"
    )


def _apply_patch(args: argparse.Namespace) -> int:
    try:
        report = _patched(args)
    except PatchError as error:
        _print(args, {"ok": False, "error": str(error)}, f"Error: {error}", stream=sys.stderr)
        return 1
    lines = [f"{action[0].upper()} {path}" for action, path in report.changes]
    done = "Done! (dry run: nothing was written)" if report.dry_run else "Done!"
    _print(args, report.to_json(), "\n".join([*lines, *report.notes, done]))
    return 0


def _patched(args: argparse.Namespace) -> Report:
    if args.undo:
        return undo_patch(args.root, dry_run=args.dry_run)
    text = patch_text(_read(args.file))
    return apply_patch(text, args.root, dry_run=args.dry_run, final_newline=args.final_newline)


# serve


def _add_serve(tools: Any) -> None:
    parser = _sub(tools, "serve", _serve, "serve one tool over MCP")
    parser.add_argument("tool", choices=("browser", "python", "apply_patch"), help="which tool")
    parser.add_argument(
        "--transport",
        choices=("http", "stdio"),
        default="http",
        help="http serves /mcp (streamable HTTP) and /sse; stdio serves one client",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8001, metavar="PORT", help="default 8001")
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="further Host header to accept, for example tools.internal:*; may be repeated",
    )
    parser.add_argument("--root", default=".", metavar="DIR", help="folder for apply_patch")
    _add_backend(parser)
    _add_jail(parser)


def _serve(args: argparse.Namespace) -> int:
    # Being told to stop is an ordinary end: jails and their files go with the server.
    usual = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return _serve_until_stopped(args)
    finally:
        signal.signal(signal.SIGTERM, usual)


def _serve_until_stopped(args: argparse.Namespace) -> int:
    from gptoss_tools.mcp import run_http, run_stdio, tool_server

    server = tool_server(args.tool, _maker(args))
    if args.transport == "stdio":
        run_stdio(server)
        return 0

    def ready(port: int) -> None:
        print(
            f"{args.tool} at http://{args.host}:{port}/mcp and /sse; stop with Ctrl-C",
            file=sys.stderr,
            flush=True,
        )

    run_http(server, host=args.host, port=args.port, allowed_hosts=args.allowed_host, ready=ready)
    return 0


def _maker(args: argparse.Namespace) -> Callable[[], Any]:
    if args.tool == "browser":
        backend = _backend(args)
        return lambda: SimpleBrowserTool(backend=backend)
    if args.tool == "python":
        sandbox = _sandbox(args)
        return lambda: _python_tool(args, sandbox)
    return lambda: ApplyPatchTool(args.root)


def _read(name: str | None) -> str:
    if name in (None, "-"):
        return sys.stdin.read()
    try:
        return Path(str(name)).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text") from error


def _print(args: argparse.Namespace, data: Any, text: str, *, stream: Any = None) -> None:
    if args.json:
        text, stream = json.dumps(data, ensure_ascii=False), None
    # File names and files need not be UTF-8; what is not is shown as `?`.
    print(text.encode("utf-8", "replace").decode("utf-8"), file=stream or sys.stdout)
