"""Stateful python: a Jupyter session in a jail, its life and its deaths."""

import base64
import os
import sys
from collections.abc import Callable, Iterator

import pytest

from gptoss_harmony.testing import require
from gptoss_tools.python.limits import Limits, MiB
from gptoss_tools.python.tool import PythonTool

pytestmark = pytest.mark.jupyter
Make = Callable[..., PythonTool]


@pytest.fixture(autouse=True)
def _needs_jupyter() -> None:
    try:
        import ipykernel  # noqa: F401
        import jupyter_client  # noqa: F401
    except ImportError:
        require(False, "ipykernel and jupyter_client are not installed")


@pytest.fixture(scope="module")
def session() -> Iterator[PythonTool]:
    """One session for the tests that leave it as they found it."""
    import shutil

    require(shutil.which("bwrap") is not None, "bubblewrap is not installed")
    tool = PythonTool("bubblewrap", stateful=True)
    yield tool
    tool.close()


def say(tool: PythonTool, code: str) -> str:
    return tool.describe(tool.run(code))


@pytest.mark.bubblewrap
def test_state_and_the_last_value(session: PythonTool) -> None:
    assert say(session, "import math\nradius = 2").startswith("[WARN]")
    assert say(session, "math.pi * radius ** 2") == "12.566370614359172"
    assert say(session, "print('a')\nradius") == "a\n2"
    assert say(session, "None").startswith("[WARN]")


@pytest.mark.bubblewrap
def test_streams_keep_their_order(session: PythonTool) -> None:
    code = "import sys\nfor n in range(3):\n    print(n)\n    print('e', n, file=sys.stderr)\n'v'"
    assert say(session, code) == "0\ne 0\n1\ne 1\n2\ne 2\n'v'"


@pytest.mark.bubblewrap
def test_errors_are_plain_text(session: PythonTool) -> None:
    text = say(session, "print('before')\n{}['x']")
    assert text.startswith("before\n")
    assert "KeyError: 'x'" in text
    assert "\x1b" not in text
    assert session.run("1/0").exit_code == 1


@pytest.mark.bubblewrap
def test_an_interrupted_call_keeps_the_state() -> None:
    tool = PythonTool("bubblewrap", stateful=True, limits=Limits(seconds=2))
    try:
        say(tool, "x = 41")
        text = say(tool, "import time\nprint('started')\ntime.sleep(60)")
        assert text.startswith("started\n")
        assert text.endswith("[ERROR] Execution timed out after 2 seconds.")
        assert say(tool, "x + 1") == "42"
    finally:
        tool.close()


@pytest.mark.bubblewrap
def test_a_session_that_ignores_interrupts_is_started_afresh() -> None:
    tool = PythonTool("bubblewrap", stateful=True, limits=Limits(seconds=2))
    try:
        say(tool, "x = 1; open('/mnt/data/kept', 'w').write('1')")
        stubborn = (
            "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "while True:\n    time.sleep(1)"
        )
        assert "the Python session was restarted" in say(tool, stubborn)
        assert "NameError" in say(tool, "x")
        assert say(tool, "open('/mnt/data/kept').read()") == "'1'"
    finally:
        tool.close()


@pytest.mark.bubblewrap
def test_a_session_that_dies_says_so_and_comes_back(session: PythonTool) -> None:
    text = say(session, "import os; os._exit(3)")
    assert "the Python session died" in text.lower() or "session died" in text
    assert say(session, "1 + 1") == "2"


def test_a_failure_without_a_traceback_is_a_failure(session: PythonTool) -> None:
    session.run("shell = get_ipython(); shown = shell.showtraceback")
    session.run("shell.showtraceback = lambda *arguments, **options: None")
    assert session.run("1 / 0").exit_code == 1
    assert session.run("shell.showtraceback = shown").exit_code == 0


@pytest.mark.bubblewrap
def test_memory_of_a_session_is_bounded() -> None:
    limits = Limits(memory_bytes=384 * MiB, seconds=30)
    tool = PythonTool("bubblewrap", stateful=True, limits=limits)
    try:
        outcome = tool.run("kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))")
        # Without memory the kernel may not manage to say anything but the error's name.
        assert outcome.exit_code != 0 or "MemoryError" in outcome.output
        assert outcome.output or outcome.stopped
        tool.run("kept = None")
        assert say(tool, "1 + 1") == "2"
    finally:
        tool.close()


@pytest.mark.bubblewrap
def test_pictures_become_files(session: PythonTool) -> None:
    pixel = (
        b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJ"
        b"RU5ErkJggg=="
    )
    code = (
        "import base64\nfrom IPython.display import Image\n"
        f"Image(data=base64.b64decode({pixel!r}), format='png')"
    )
    assert say(session, code) == "[image saved to /mnt/data/image-1.png]"
    assert (session.workspace.data / "image-1.png").read_bytes() == base64.b64decode(pixel)


@pytest.mark.bubblewrap
def test_input_and_shell_escapes_do_not_hang(session: PythonTool) -> None:
    assert "StdinNotImplementedError" in say(session, "input('?')")
    assert say(session, "!echo out of the shell") == "out of the shell"


@pytest.mark.bubblewrap
def test_a_flood_ends_the_session() -> None:
    tool = PythonTool("bubblewrap", stateful=True, limits=Limits(flood_bytes=1 << 20))
    try:
        text = say(tool, "while True:\n    print('x' * 1000)")
        assert "bytes of output" in text
        assert say(tool, "'back'") == "'back'"
    finally:
        tool.close()


@pytest.mark.docker
def test_a_session_in_docker(make_tool: Make) -> None:
    """The host's interpreter, mounted read-only: the test image has no ipykernel of its own."""
    image = os.environ.get("GPTOSS_TEST_IMAGE")
    require(image is not None, "GPTOSS_TEST_IMAGE does not name an image with Python")
    from gptoss_tools.python.docker import DockerSandbox

    folders = sorted({sys.prefix, sys.base_prefix})
    sandbox = DockerSandbox(image=str(image), python=sys.executable, mounts=folders)
    tool = make_tool(sandbox, stateful=True)
    assert say(tool, "x = 20").startswith("[WARN]")
    assert say(tool, "x + 1") == "21"
    sandbox.close()
