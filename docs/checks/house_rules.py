"""Check the rules of the house that no other linter knows. Run by `nox -s lint`.

`--pins` checks only that every package carries the one version, which `nox -s release` asks for.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {"packages", "noxfile.py", "pyproject.toml", "README.md", "LICENSE", "docs"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}
LONGEST_FILE = 400
LONGEST_FUNCTION = 60  # lines with signature and docstring; a screen
LONGEST_KERNEL = 130  # a GPU kernel is one function by nature
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|opt/venv)/")


def tracked() -> list[Path]:
    """Return the files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def pins() -> Iterator[str]:
    """Every pin between packages is the one version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["gptoss"]["version"]
    for file in sorted(ROOT.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(file.read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        for line in [*project.get("dependencies", []), *(x for extra in extras for x in extra)]:
            own_extras = line.startswith(f"{project['name']}[")
            if line.startswith("gptoss-") and not own_extras and not line.endswith(f"=={version}"):
                yield f"{file.relative_to(ROOT)}: {line!r} must be pinned to =={version}"


def layout(files: list[Path]) -> Iterator[str]:
    """The top level holds what it should, and every package its licence and type marker."""
    for name in sorted({file.relative_to(ROOT).parts[0] for file in files}):
        if name not in TOP_LEVEL and not name.startswith("."):
            yield f"{name}: nothing else belongs at the top level"
    licence = (ROOT / "LICENSE").read_bytes()
    for package in sorted(ROOT.glob("packages/*/")):
        copy = package / "LICENSE"
        if not copy.is_file() or copy.read_bytes() != licence:
            yield f"{copy.relative_to(ROOT)}: must be a copy of LICENSE"
        for source in package.glob("src/*/"):
            if any(source.glob("**/*.py")) and not (source / "py.typed").is_file():
                yield f"{source.relative_to(ROOT)}: py.typed is missing"


def shipped(files: list[Path]) -> Iterator[str]:
    """Shipped modules are short, named for a concept, and start with a docstring."""
    for file in files:
        parts = file.relative_to(ROOT).parts
        if file.suffix != ".py" or parts[0] != "packages" or "src" not in parts:
            continue
        where = file.relative_to(ROOT)
        text = file.read_text(encoding="utf-8")
        if file.stem in VAGUE_NAMES:
            yield f"{where}: name the concept, not a drawer"
        if (length := text.count("\n")) > LONGEST_FILE:
            yield f"{where}: {length} lines, at most {LONGEST_FILE}"
        tree = ast.parse(text)
        if not ast.get_docstring(tree):
            yield f"{where}: starts with no docstring"
        yield from (f"{where}:{problem}" for problem in functions(tree))
        if file.name == "__init__.py":
            yield from (f"{where}: {problem}" for problem in exports(tree))


def functions(tree: ast.Module) -> Iterator[str]:
    """Functions fit a screen."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            is_kernel = any("jit" in ast.unparse(mark) for mark in node.decorator_list)
            longest = LONGEST_KERNEL if is_kernel else LONGEST_FUNCTION
            if length > longest:
                yield f"{node.lineno}: {node.name} has {length} lines, at most {longest}"


def exports(tree: ast.Module) -> Iterator[str]:
    """`__all__` equals what an `__init__` imports (ruff keeps it sorted)."""
    names: list[str] = []
    listed: list[str] | None = None
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names += [alias.asname or alias.name for alias in node.names]
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            listed = ast.literal_eval(node.value)
    public = {name for name in names if not name.startswith("_")}
    lazy = any(isinstance(node, ast.FunctionDef) for node in tree.body)
    if public and not lazy and set(listed or []) != public:
        yield f"__all__ differs from the imports by {sorted(set(listed or []) ^ public)}"


def texts(files: list[Path]) -> Iterator[str]:
    """No file speaks of the machine it was written on."""
    for file in files:
        if file == Path(__file__) or file.suffix in {".tiktoken", ".safetensors", ".png"}:
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if MACHINE_PATH.search(line):
                yield f"{file.relative_to(ROOT)}:{number}: a path of one machine"


def main() -> int:
    """Print every broken rule; the exit code is 1 if there is any."""
    files = tracked()
    problems = list(pins())
    if "--pins" not in sys.argv[1:]:
        problems += [*layout(files), *shipped(files), *texts(files)]
    for problem in problems:
        print(problem)
    print(f"house rules: {len(problems)} broken" if problems else "house rules: kept")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
