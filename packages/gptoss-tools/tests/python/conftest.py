"""Tools in real jails."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gptoss_harmony.testing import require
from gptoss_tools.python.bubblewrap import BubblewrapSandbox
from gptoss_tools.python.docker import DockerSandbox
from gptoss_tools.python.sandbox import Sandbox
from gptoss_tools.python.tool import PythonTool


def bubblewrap() -> Sandbox:
    require(shutil.which("bwrap") is not None, "bubblewrap is not installed")
    return BubblewrapSandbox()


def docker() -> Sandbox:
    image = os.environ.get("GPTOSS_TEST_IMAGE")
    require(image is not None, "GPTOSS_TEST_IMAGE does not name an image with Python")
    return DockerSandbox(image=str(image))


@pytest.fixture(
    params=[
        pytest.param(bubblewrap, marks=pytest.mark.bubblewrap, id="bubblewrap"),
        pytest.param(docker, marks=pytest.mark.docker, id="docker"),
    ]
)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Each kind of jail."""
    make: Callable[[], Sandbox] = request.param
    made = make()
    yield made
    if isinstance(made, DockerSandbox):
        made.close()


@pytest.fixture
def make_tool() -> Iterator[Callable[..., PythonTool]]:
    """Makes tools and closes them."""
    tools: list[PythonTool] = []

    def make(sandbox: Sandbox, **options: Any) -> PythonTool:
        tools.append(PythonTool(sandbox, **options))
        return tools[-1]

    yield make
    for tool in tools:
        tool.close()
