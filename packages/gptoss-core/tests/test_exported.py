from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import gptoss_core


def test_public_names_are_sorted_and_there() -> None:
    assert gptoss_core.__all__ == sorted(gptoss_core.__all__)
    for name in gptoss_core.__all__:
        assert getattr(gptoss_core, name).__name__ == name


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(gptoss_core.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        a.name for node in block.body if isinstance(node, ast.ImportFrom) for a in node.names
    }
    assert imported == set(gptoss_core.__all__)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import gptoss_core, sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
