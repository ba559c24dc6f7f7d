"""The flags about an upstream that `chat` and `serve` share, and the session they come to."""

from __future__ import annotations

import argparse
import logging
import os

from gptoss_harmony.errors import UsageError
from gptoss_serve.upstream.discover import find_endpoint
from gptoss_serve.upstream.session import UpstreamSession

KEY_VARIABLE = "GPTOSS_UPSTREAM_KEY"


def add_upstream_options(parser: argparse.ArgumentParser) -> None:
    """Declare where the upstream is and how to treat it."""
    group = parser.add_argument_group(
        "upstream", f"a server that answers in place of an engine (its key: {KEY_VARIABLE})"
    )
    group.add_argument(
        "--upstream", metavar="URL", help="its base URL, such as http://host:8000/v1"
    )
    group.add_argument(
        "--upstream-api",
        choices=("auto", "responses", "chat"),
        default="auto",
        help="what it speaks (default auto: the Responses API if it has one)",
    )
    group.add_argument(
        "--upstream-model", metavar="NAME", help="its name of the model (default: the first listed)"
    )
    group.add_argument(
        "--upstream-timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="longest silence of it (default 600)",
    )
    group.add_argument(
        "--upstream-retries",
        type=int,
        default=2,
        metavar="N",
        help="attempts after a busy or missing answer, before anything was streamed (default 2)",
    )


def upstream_session(args: argparse.Namespace) -> UpstreamSession:
    """Find the upstream and make the session; `args.upstream` is given.

    Raises:
        UsageError: an engine is asked for as well, or the upstream cannot be used.
    """
    if args.checkpoint != "nano" or args.engine != "auto":
        raise UsageError(
            "--upstream answers in place of an engine: leave the checkpoint and the engine out"
        )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line per request is ours
    endpoint = find_endpoint(
        args.upstream,
        api=None if args.upstream_api == "auto" else args.upstream_api,
        model=args.upstream_model,
        key=_key(),
        silence_seconds=args.upstream_timeout,
        retries=args.upstream_retries,
    )
    return UpstreamSession(endpoint)


def _key() -> str | None:
    """The key of the environment, without the line end that files have."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{KEY_VARIABLE} holds characters that no key has; set it again")
    return key or None


def upstream_sentence(session: UpstreamSession) -> str:
    """What is said at the start."""
    endpoint = session.endpoint
    spoken = {"responses": "the Responses API", "chat": "Chat Completions"}[endpoint.api]
    return f"upstream {endpoint.shown}: model {endpoint.model} over {spoken}"
