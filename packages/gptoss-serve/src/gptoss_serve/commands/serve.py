"""`gptoss serve`: the Responses API, Chat Completions and their operations over any engine."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from gptoss_harmony import Engine
from gptoss_harmony.errors import UsageError
from gptoss_harmony.options import add_engine_argument, engine_options, resolve_engine
from gptoss_harmony.plugins import open_engine
from gptoss_serve.app import create_app
from gptoss_serve.mcp_client.access import McpAccess
from gptoss_serve.responses.store import ResponseStore
from gptoss_serve.server import DrainingServer
from gptoss_serve.session import Session
from gptoss_serve.settings import ServerSettings
from gptoss_serve.tool_options import add_serving_options, add_tool_options, make_toolbox
from gptoss_serve.tracing import Tracing
from gptoss_serve.upstream.options import (
    add_upstream_options,
    upstream_sentence,
    upstream_session,
)
from gptoss_serve.watch import Watch

HELP = "serve the Responses API and Chat Completions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; `--checkpoint`, `--port` and `--inference-backend` are the original's."""
    parser.add_argument(
        "--checkpoint",
        default="nano",
        metavar="FILE",
        help="an original/ or Hugging Face folder, a model.bin, a hub id, or nano (default nano)",
    )
    parser.add_argument("--port", type=int, default=8000, help="port (default 8000; 0 any)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)"
    )
    add_engine_argument(parser, "--inference-backend")
    parser.add_argument("--model-name", metavar="NAME", help="name in /v1/models")
    parser.add_argument(
        "--alias", action="append", default=[], metavar="NAME", help="another name; repeatable"
    )
    parser.add_argument(
        "--browser", action="store_true", help="offer our browser to clients that ask for it"
    )
    parser.add_argument(
        "--python", action="store_true", help="offer our python to clients that ask for it"
    )
    add_upstream_options(parser)
    add_tool_options(parser)
    add_serving_options(parser)
    _add_behaviour(parser)
    _add_limits(parser)
    _add_logs(parser)


def _add_behaviour(parser: argparse.ArgumentParser) -> None:
    defaults = ServerSettings()
    group = parser.add_argument_group("behaviour")
    group.add_argument(
        "--store",
        default="",
        metavar="FILE",
        help="where responses are kept: a file, memory, or off (default: in the user's cache)",
    )
    group.add_argument(
        "--store-days", type=float, default=30.0, metavar="N", help="forget after (default 30)"
    )
    group.add_argument(
        "--reasoning-events",
        choices=("text", "summary", "spec"),
        default=defaults.reasoning,
        help="names of reasoning events (default text, which Codex and OpenAI's SDKs read)",
    )
    group.add_argument(
        "--reasoning-content",
        action="store_true",
        help="Chat Completions: write thoughts to reasoning_content as well",
    )
    group.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help="ask clients for this key; repeatable (also GPTOSS_API_KEY)",
    )
    group.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="let pages of this origin call us (CORS); repeatable",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    defaults = ServerSettings()
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--max-running", type=int, default=defaults.max_running, metavar="N", help="answers at once"
    )
    group.add_argument(
        "--max-waiting",
        type=int,
        default=defaults.max_waiting,
        metavar="N",
        help="requests that may wait for their turn",
    )
    group.add_argument(
        "--max-seconds", type=float, metavar="S", help="longest answer (default: any)"
    )
    group.add_argument(
        "--drain-seconds",
        type=float,
        default=defaults.drain_seconds,
        metavar="S",
        help="how long a shutdown waits for running answers",
    )
    group.add_argument(
        "--client-seconds",
        type=float,
        default=defaults.client_seconds,
        metavar="S",
        help="how long a client may take to send a request or take a piece of the answer",
    )
    group.add_argument(
        "--max-body-bytes",
        type=int,
        default=defaults.max_body_bytes,
        metavar="N",
        help="larger requests are refused",
    )


def _add_logs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("logs and traces")
    group.add_argument("--quiet", action="store_true", help="write no line per request")
    group.add_argument(
        "--log-prompts",
        action="store_true",
        help="write what clients send into the access log and the traces",
    )
    group.add_argument(
        "--otel",
        metavar="URL",
        help="send OpenTelemetry traces to this collector over OTLP (default: only where the "
        "OTEL_EXPORTER_OTLP_* variables name one)",
    )


def run(args: argparse.Namespace) -> int:
    """Open the engine, or find the upstream, and serve until told to stop."""
    if not 0 <= args.port < 65536:
        raise UsageError(f"--port is 0 to 65535, not {args.port}")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("gptoss_serve").setLevel(logging.WARNING if args.quiet else logging.INFO)
    settings = server_settings(args)
    toolbox = make_toolbox(args, browser=args.browser, python=args.python, keep=True)
    with ExitStack() as stack:
        model = _model(args, stack)
        store = _store(args)
        if store is not None:
            stack.callback(store.close)
        app = create_app(
            model,
            settings=settings,
            toolbox=toolbox,
            store=store,
            model_name=args.model_name,
            aliases=args.alias,
            watch=_watch(args, stack),
        )
        server = DrainingServer(app, host=args.host, port=args.port, settings=settings)
        server.run()
    return 0 if server.started else 1


def _model(args: argparse.Namespace, stack: ExitStack) -> Engine | Session:
    """What answers: an engine, which is closed at the end, or an upstream."""
    if args.upstream:
        session = upstream_session(args)
        print(upstream_sentence(session), file=sys.stderr)
        return session
    name, sentence = resolve_engine(args.engine)
    print(sentence, file=sys.stderr)
    return stack.enter_context(closing(open_engine(name, args.checkpoint, **engine_options(args))))


def _watch(args: argparse.Namespace, stack: ExitStack) -> Watch | None:
    """Traces, where the flag or the environment names a collector."""
    named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    if not args.otel and (off or not any(map(os.environ.get, named))):
        return None
    tracing = Tracing.exporting(args.otel, prompts=args.log_prompts)
    stack.callback(tracing.close)
    return tracing


def server_settings(args: argparse.Namespace) -> ServerSettings:
    """The flags as one value."""
    key = os.environ.get("GPTOSS_API_KEY", "").strip()  # without the line end that files have
    return ServerSettings(
        reasoning=args.reasoning_events,
        reasoning_content=args.reasoning_content,
        keys=(*args.api_key, *([key] if key else [])),
        origins=tuple(args.allow_origin),
        max_running=args.max_running,
        max_waiting=args.max_waiting,
        max_seconds=args.max_seconds,
        mcp=McpAccess.parse(args.mcp_allow),
        mcp_seconds=args.mcp_seconds,
        drain_seconds=args.drain_seconds,
        client_seconds=args.client_seconds,
        max_body_bytes=args.max_body_bytes,
        log_prompts=args.log_prompts,
    )


def _store(args: argparse.Namespace) -> ResponseStore | None:
    if args.store == "off":
        return None
    path: Path | None = None
    if args.store != "memory":
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        path = Path(args.store) if args.store else cache / "gptoss" / "responses.sqlite"
    return ResponseStore(path, seconds_to_live=args.store_days * 86400)
