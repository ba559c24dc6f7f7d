"""Run every ```python and ```bash block of the READMEs and the docs. Run by `nox -s docs`.

The blocks of a page run in their order, each in its own process, in one scratch folder per page.
A block that cannot run on every machine is preceded by a line `<!-- needs: REASON -->` with a
reason from `REASONS`; it is listed as not run. Arguments are parts of paths: only those pages run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REASONS = {"gpu", "mac", "network", "key", "a fresh environment", "docker", "terminal"}
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
    with tempfile.TemporaryDirectory() as folder:
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("code"))
            where = f"{page.relative_to(ROOT)}:{line}"
            if (needs := match["needs"]) is not None:
                known = needs in REASONS
                outcome = f"needs {needs}" if known else f"failed: unknown reason {needs!r}"
                results.append(Result(where=where, outcome=outcome))
                continue
            results.append(run_block(where, match["language"], match["code"], folder))
            if results[-1].outcome != "ran":
                break
    return results


def run_block(where: str, language: str, code: str, folder: str) -> Result:
    """Run one block."""
    # `gptoss` and `python` are those beside the interpreter that runs this check.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
    try:
        done = subprocess.run(
            [*program, code],
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result(where=where, outcome=f"failed: more than {SECONDS} s")
    if done.returncode:
        output = f"{done.stdout}{done.stderr}"[-4000:]
        return Result(
            where=where, outcome=f"failed with exit code {done.returncode}", output=output
        )
    return Result(where=where, outcome="ran")


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
