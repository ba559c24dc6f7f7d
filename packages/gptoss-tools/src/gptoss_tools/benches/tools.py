"""`gptoss bench tools`: what a call of each tool costs.

Python: a jailed call beside the bare interpreter. apply_patch: many hunks in a long file. Browser:
search and open on a made-up corpus.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from gptoss_harmony.errors import HarmonyError
from gptoss_tools.browser.backends.corpus import CorpusBackend, build_index
from gptoss_tools.browser.tool import SimpleBrowserTool
from gptoss_tools.patch.apply import apply_patch
from gptoss_tools.python.sandbox import Sandbox, open_sandbox
from gptoss_tools.python.tool import PythonTool

HELP = "what a call of python, apply_patch and browser costs"
_SYLLABLES = "ka lo mi ren tu sa vel or in dan qui fro bel ast emo pur".split()  # noqa: SIM905


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement, in milliseconds of wall-clock time."""

    case: str
    median: float
    worst: float
    calls: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--calls", type=int, default=20, metavar="N", help="of each case")
    parser.add_argument("--pages", type=int, default=20_000, metavar="N", help="of the corpus")
    parser.add_argument("--lines", type=int, default=10_000, metavar="N", help="of the file")
    parser.add_argument("--hunks", type=int, default=200, metavar="N", help="of the patch")
    parser.add_argument("--image", metavar="IMAGE", help="image of the Docker jail")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure every case that can run here and print a table or JSON."""
    rows = [*_patch_rows(args), *_browser_rows(args), *_python_rows(args)]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    print(f"{'case':<44}{'median ms':>10}{'worst ms':>10}{'calls':>7}")
    for row in rows:
        print(f"{row.case:<44}{row.median:>10.1f}{row.worst:>10.1f}{row.calls:>7}")
    return 0


def _timed(case: str, calls: int, action: Callable[[int], object]) -> Row:
    times = []
    for number in range(calls):
        start = time.perf_counter()
        action(number)
        times.append((time.perf_counter() - start) * 1e3)
    return Row(case=case, median=statistics.median(times), worst=max(times), calls=calls)


def _patch_rows(args: argparse.Namespace) -> Iterator[Row]:
    lines = [f"line {number} of {number % 7}" for number in range(args.lines)]
    step = max(args.lines // args.hunks, 4)
    patch = ["*** Begin Patch", "*** Update File: long.txt"]
    for start in range(0, step * args.hunks, step)[: args.lines // step]:
        patch += [
            "@@",
            f" {lines[start]}",
            f"-{lines[start + 1]}",
            "+changed",
            f" {lines[start + 2]}",
        ]
    text = "\n".join([*patch, "*** End Patch"])
    with tempfile.TemporaryDirectory() as folder:

        def once(number: int) -> None:
            (Path(folder) / "long.txt").write_text("\n".join(lines))
            apply_patch(text, folder)

        yield _timed(f"apply_patch, {args.hunks} hunks in {args.lines:,} lines", 5, once)


def _browser_rows(args: argparse.Namespace) -> Iterator[Row]:
    chance = random.Random(0)
    words = ["".join(chance.choices(_SYLLABLES, k=chance.randint(1, 4))) for _ in range(20_000)]
    weights = [1 / (rank + 10) for rank in range(len(words))]  # few words are frequent, as in texts
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "corpus.db")
        _make_pages(Path(folder, "pages"), args.pages, words, weights, chance)
        build = _timed(
            f"index of {args.pages:,} pages", 1, lambda _: build_index(Path(folder, "pages"), index)
        )
        yield build
        with closing(CorpusBackend(index)) as backend:
            tool = SimpleBrowserTool(backend=backend)
            queries = [" ".join(chance.choices(words, weights, k=3)) for _ in range(args.calls)]
            asyncio.run(tool.call("search", {"query": "warm up"}))

            def search(number: int) -> None:
                asyncio.run(tool.call("search", {"query": queries[number]}))

            def open_page(number: int) -> None:
                url = f"https://corpus.local/{chance.randrange(args.pages)}.html"
                asyncio.run(tool.call("open", {"id": url}))

            yield _timed("browser search, three words", args.calls, search)
            yield _timed("browser open", args.calls, open_page)


def _make_pages(
    folder: Path, count: int, words: list[str], weights: list[float], chance: random.Random
) -> None:
    folder.mkdir()
    for number in range(count):
        text = " ".join(chance.choices(words, weights, k=300))
        title = " ".join(chance.choices(words, k=3))
        link = f"<a href='{chance.randrange(count)}.html'>next</a>"
        page = f"<title>{title}</title><h1>{title}</h1><p>{text}</p>{link}"
        (folder / f"{number}.html").write_text(page)


def _python_rows(args: argparse.Namespace) -> Iterator[Row]:
    bare = [sys.executable, "-c", "print(1)"]
    yield _timed(
        "bare python", args.calls, lambda _: subprocess.run(bare, check=True, capture_output=True)
    )
    for name in ("bubblewrap", "docker"):
        try:
            sandbox = _sandbox(name, args.image)
            with closing(PythonTool(sandbox)) as tool:
                yield _timed(
                    f"python, {name}, stateless", args.calls, lambda _: tool.run("print(1)")
                )
        except HarmonyError as error:
            print(f"no {name}: {error}", file=sys.stderr)
            continue
        if name == "bubblewrap":
            yield from _session_rows(args.calls)


def _sandbox(name: str, image: str | None) -> Sandbox:
    if name == "docker" and image:
        from gptoss_tools.python.docker import DockerSandbox

        return DockerSandbox(image=image)
    return open_sandbox(name)


def _session_rows(calls: int) -> Iterator[Row]:
    try:
        with closing(PythonTool("bubblewrap", stateful=True)) as tool:
            yield _timed("python, bubblewrap, first stateful call", 1, lambda _: tool.run("x = 1"))
            yield _timed("python, bubblewrap, warm stateful", calls, lambda _: tool.run("x"))
    except HarmonyError as error:
        print(f"no session: {error}", file=sys.stderr)
