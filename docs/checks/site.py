"""What the site makes from the code: the API reference and the reading order.

An MkDocs hook (see `.mkdocs.yml`). Each package gets a page listing its public modules in full;
the reading order quotes the first sentence of every module.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]


def modules(package: Path) -> list[Path]:
    """Return the modules of an import package, shallow first."""
    files = [f for f in package.rglob("*.py") if not f.name.startswith("_")]
    return sorted(files, key=lambda f: (len(f.parts), f.name))


def dotted(package: Path, file: Path) -> str:
    """Return the import name of a module."""
    return ".".join(file.relative_to(package.parent).with_suffix("").parts)


def first_sentence(file: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def reference(package: Path) -> str:
    """Return the page of one package: its public names, then every module."""
    lines = [f"# {package.name}", "", f"::: {package.name}"]
    for file in modules(package):
        lines += ["", f"::: {dotted(package, file)}"]
    return "\n".join(lines)


def reading_order(packages: list[Path]) -> str:
    """Return the page that says what each module is, in the order in which to read them."""
    lines = ["# Reading order", "", "Every module in one sentence, as its own docstring says it."]
    for package in packages:
        lines += ["", f"## {package.name}", ""]
        for file in modules(package):
            lines.append(f"- `{file.relative_to(package)}`: {first_sentence(file)}")
    return "\n".join(lines)


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    packages = [f.parent for f in sorted(ROOT.glob("packages/*/src/*/__init__.py"))]
    for package in packages:
        path = f"reference/{package.name}.md"
        files.append(File.generated(config, path, content=reference(package)))
    path = "reading-order.md"
    files.append(File.generated(config, path, content=reading_order(packages)))
    return files
