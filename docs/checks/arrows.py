"""Check who imports whom, with import-linter, from the table `tool.gptoss.arrows`.

Run by `nox -s lint`. The contracts are written to a temporary file because import-linter refuses
packages that are not installed, and a package appears in the repository only when it has content.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def contracts() -> str:
    """Return an import-linter configuration for the packages that are there."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["gptoss"]["arrows"]
    present = sorted(f.parent.name for f in ROOT.glob("packages/*/src/*/__init__.py"))
    if unknown := set(present) - set(table):
        sys.exit(f"add {sorted(unknown)} to [tool.gptoss.arrows] in pyproject.toml")
    lines = ["[importlinter]", "include_external_packages = True", "root_packages ="]
    lines += [f"    {name}" for name in present]
    for name in present:
        forbidden = [other for other in present if other not in {name, *table[name]["may_import"]}]
        lines += [f"[importlinter:contract:{name}]", f"name = {name} imports only what it may"]
        lines += ["type = forbidden", "source_modules =", f"    {name}", "forbidden_modules ="]
        lines += [f"    {other}" for other in [*forbidden, *table[name]["never"]]]
        if apart := table[name].get("apart"):
            lines += ["ignore_imports =", *(f"    {line}" for line in apart)]
    return "\n".join(lines)


def main() -> int:
    """Run import-linter and return its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "importlinter.ini"
        config.write_text(contracts())
        command = ["lint-imports", "--config", str(config), "--no-cache"]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
