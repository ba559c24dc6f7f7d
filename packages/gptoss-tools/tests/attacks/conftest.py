"""Jails to attack. Every file here is one attack, and every attack must fail in every jail.

An attack is code that prints ESCAPED where it succeeds and HELD where it is stopped; the tests
also look at the host's side where there is one.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from gptoss_harmony.testing import require
from gptoss_tools.errors import SandboxError
from gptoss_tools.python.docker import DockerSandbox
from gptoss_tools.python.limits import Limits, MiB
from gptoss_tools.python.sandbox import Outcome, Sandbox, run_code
from gptoss_tools.python.workspace import Workspace

LIMITS = Limits(
    seconds=8,
    memory_bytes=256 * MiB,
    processes=32,
    disk_bytes=16 * MiB,
    files=500,
    flood_bytes=4 * MiB,
)

# Put before every attack: run one step and say whether it got through.
PRELUDE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, step):
    try:
        result = step()
    except BaseException as error:
        print("HELD", name, type(error).__name__, error)
    else:
        print("HELD" if result in (None, False, -1) else "ESCAPED", name, result)
    sys.stdout.flush()
"""


def docker_sandbox() -> Sandbox:
    """The Docker jail on the image that the environment names."""
    image = os.environ.get("GPTOSS_TEST_IMAGE")
    require(image is not None, "GPTOSS_TEST_IMAGE does not name an image with Python")
    try:
        return DockerSandbox(image=str(image))
    except SandboxError as error:
        require(False, str(error))
        raise


def bubblewrap_sandbox() -> Sandbox:
    """The bubblewrap jail."""
    from gptoss_tools.python.bubblewrap import BubblewrapSandbox

    require(shutil.which("bwrap") is not None, "bubblewrap is not installed")
    return BubblewrapSandbox()


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(bubblewrap_sandbox, marks=pytest.mark.bubblewrap, id="bubblewrap"),
        pytest.param(docker_sandbox, marks=pytest.mark.docker, id="docker"),
    ],
)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Each kind of jail."""
    make: Callable[[], Sandbox] = request.param
    made = make()
    yield made
    if isinstance(made, DockerSandbox):
        made.close()


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    """A conversation's files."""
    with closing(Workspace()) as workspace:
        yield workspace


@pytest.fixture
def attack(sandbox: Sandbox, workspace: Workspace) -> Callable[[str], Outcome]:
    """Run an attack; it must have run, and must not have escaped."""

    def run(code: str) -> Outcome:
        outcome = run_code(sandbox, PRELUDE + code, workspace, limits=LIMITS)
        assert "ESCAPED" not in outcome.output, outcome.output
        assert "HELD" in outcome.output or outcome.stopped, outcome
        return outcome

    return run
