"""What the wheel offers: public names, entry points, extras, and what it never imports."""

import builtins
import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import pytest

import gptoss_tools
from gptoss_harmony.errors import NotInstalled, UsageError
from gptoss_harmony.plugins import discover, load
from gptoss_harmony.tool import Tool
from gptoss_tools.errors import SandboxError
from gptoss_tools.python.limits import Limits
from gptoss_tools.python.sandbox import Outcome, open_sandbox
from gptoss_tools.python.seccomp import seccomp_program


def test_public_names_are_sorted_and_there() -> None:
    assert gptoss_tools.__all__ == sorted(gptoss_tools.__all__)
    for name in gptoss_tools.__all__:
        assert getattr(gptoss_tools, name).__name__ == name


def test_tools_are_found_by_entry_point() -> None:
    tools = discover("gptoss.tools")
    assert {"browser", "python", "apply_patch"} <= set(tools)
    assert load(tools["apply_patch"]) is gptoss_tools.ApplyPatchTool
    assert isinstance(gptoss_tools.ApplyPatchTool(), Tool)
    assert entry_points(group="gptoss.commands")["tool"].value == "gptoss_tools.cli"


def test_importing_brings_nothing_heavy() -> None:
    code = (
        "import gptoss_tools, gptoss_tools.cli, sys\n"
        "heavy = {'torch', 'docker', 'jupyter_client', 'zmq', 'mcp', 'exa_py', 'pypdf'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [
        ("docker", "docker", lambda: open_sandbox("docker")),
        ("mcp", "mcp", lambda: _serve()),
        ("pypdf", "pdf", lambda: _pdf()),
        ("jupyter_client", "jupyter", lambda: _kernel()),
        ("exa_py", "exa", lambda: _exa()),
    ],
)
def test_a_missing_extra_is_one_sentence_with_its_pip_line(
    module: str, extra: str, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == module:
            raise ImportError(f"No module named {name!r}")
        return original(name, *arguments, **keywords)

    for loaded in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotInstalled, match=rf"pip install 'gptoss-tools\[{extra}\]'"):
        use()


def _serve() -> None:
    from gptoss_tools.mcp import tool_server

    tool_server("apply_patch", gptoss_tools.ApplyPatchTool)


def _pdf() -> None:
    from gptoss_tools.browser.backends.document import document_page

    document_page(b"%PDF-1.7", "u", content_type="application/pdf")


def _kernel() -> None:
    from contextlib import closing

    from gptoss_tools.python.host import UnsafeHostSandbox
    from gptoss_tools.python.kernel import Kernel
    from gptoss_tools.python.workspace import Workspace

    with closing(Workspace()) as workspace:
        Kernel(UnsafeHostSandbox(i_know_this_is_unsafe=True), workspace, limits=Limits())


def _exa() -> None:
    import asyncio

    asyncio.run(gptoss_tools.ExaBackend(api_key="k").search("q", topn=1))


def test_limits_and_jails_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="seconds must be positive"):
        Limits(seconds=0)
    with pytest.raises(UsageError, match="64 MiB"):
        Limits(memory_bytes=1 << 20)
    with pytest.raises(UsageError, match="no jail 'chroot'"):
        open_sandbox("chroot")


def test_a_missing_jail_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        open_sandbox("bubblewrap")
    with pytest.raises(SandboxError, match=r"bubblewrap.*Docker"):
        open_sandbox("auto")


def test_a_jail_that_is_not_tight_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from gptoss_tools.python import selftest
    from gptoss_tools.python.host import UnsafeHostSandbox

    host = UnsafeHostSandbox(i_know_this_is_unsafe=True)
    with pytest.raises(SandboxError, match=r"is not tight here: .*files of the host"):
        selftest.check(host)
    broken = Outcome(output="no such program", exit_code=127)
    monkeypatch.setattr(selftest, "run_code", lambda *arguments, **keywords: broken)
    with pytest.raises(SandboxError, match="does not work here: no such program"):
        selftest.check(host)


def test_filters_of_both_processors_are_whole_programs() -> None:
    for machine in ("x86_64", "aarch64"):
        program = seccomp_program(machine)
        assert len(program) % 8 == 0
        assert len(program) // 8 < 4096
    assert seccomp_program("x86_64") != seccomp_program("aarch64")
    with pytest.raises(SandboxError, match="riscv64"):
        seccomp_program("riscv64")
