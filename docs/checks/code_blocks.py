"""Run every ```python and ```bash block of the READMEs and the docs. Run by `nox -s docs`.

The blocks of a page run in their order, each in its own process, in one scratch folder per page.
A block that cannot run on every machine is preceded by a line `<!-- needs: REASON -->` with a
reason from `REASONS`; it is listed as not run. Where the reason is one of `PROGRAMS`, it runs
if that program is there, and always with GPTOSS_REQUIRE_REAL=1. What a page leaves running is
stopped at its end. Arguments are parts of paths: only those pages run.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REASONS = {"gpu", "mac", "network", "key", "a fresh environment", "docker", "terminal"}
PROGRAMS = {"node", "codex"}
BLOCK = re.compile(
    r"(?:<!-- needs: (?P<needs>[^>]+?) -->\n)?^```(?P<language>python|bash)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one block."""

    where: str
    outcome: str  # ran, failed, or why it was not run
    output: str = ""


def pages() -> list[Path]:
    """Return every page that has blocks, by path."""
    found = [ROOT / "README.md", *ROOT.glob("packages/*/README.md"), *ROOT.glob("docs/**/*.md")]
    found += ROOT.glob(".github/*.md")
    wanted = sys.argv[1:]
    return [p for p in sorted(found) if not wanted or any(part in str(p) for part in wanted)]


def run_page(page: Path) -> list[Result]:
    """Run the blocks of one page in order; after a failure the rest of the page is not run."""
    results: list[Result] = []
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("code"))
            where = f"{page.relative_to(ROOT)}:{line}"
            if (outcome := why_not(match["needs"])) is not None:
                results.append(Result(where=where, outcome=outcome))
                continue
            results.append(run_block(where, program(match), folder, running))
            if results[-1].outcome != "ran":
                break
    return results


def why_not(needs: str | None) -> str | None:
    """Return why a block is not run here, or None if it is."""
    if needs in PROGRAMS:
        wanted = os.environ.get("GPTOSS_REQUIRE_REAL") == "1" or shutil.which(needs)
        return None if wanted else f"needs {needs}"
    if needs is None or needs in REASONS:
        return needs and f"needs {needs}"
    return f"failed: unknown reason {needs!r}"


def program(match: re.Match[str]) -> list[str]:
    """Return the command that runs a block."""
    if match["language"] == "python":
        return [sys.executable, "-c", match["code"]]
    return ["bash", "-euo", "pipefail", "-c", match["code"]]


def run_block(where: str, command: list[str], folder: str, running: ExitStack) -> Result:
    """Run one block; `running` stops what it leaves behind."""
    # `gptoss` and `python` are those beside the interpreter that runs this check.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    block = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    running.callback(stop_group, block.pid)
    try:
        output, _ = block.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Result(where=where, outcome=f"failed: more than {SECONDS} s")
    if block.returncode:
        outcome = f"failed with exit code {block.returncode}"
        return Result(where=where, outcome=outcome, output=output[-4000:])
    return Result(where=where, outcome="ran")


def stop_group(leader: int) -> None:
    """Stop what is left of a block's processes."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def main() -> int:
    """Run all pages, two at a time; the exit code is 1 if any block failed."""
    with ThreadPoolExecutor(2) as pool:
        results = [result for page in pool.map(run_page, pages()) for result in page]
    for result in results:
        if result.outcome != "ran":
            print(f"{result.where}: {result.outcome}\n{result.output}".rstrip())
    failed = sum(result.outcome.startswith("failed") for result in results)
    ran = sum(result.outcome == "ran" for result in results)
    print(f"code blocks: {ran} ran, {failed} failed, {len(results) - ran - failed} not run here")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
