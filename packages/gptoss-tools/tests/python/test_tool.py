"""python as a tool in its jails: the contract, output, time, files, cancelling."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from openai_harmony import Author, Message, Role, TextContent, ToolNamespaceConfig

from gptoss_harmony.testing import ToolContract, require
from gptoss_tools.errors import SandboxError
from gptoss_tools.python.limits import Limits
from gptoss_tools.python.sandbox import Sandbox
from gptoss_tools.python.tool import PythonTool

Make = Callable[..., PythonTool]


def call(code: str, recipient: str = "python") -> Message:
    return Message(
        author=Author(role=Role.ASSISTANT),
        content=[TextContent(text=code)],
        channel="analysis",
        recipient=recipient,
        content_type="code",
    )


class TestContract(ToolContract):
    good_call = call("print(6 * 7)")

    @pytest.fixture
    def tool(self, sandbox: Sandbox, make_tool: Make) -> PythonTool:
        return make_tool(sandbox)


def say(tool: PythonTool, code: str) -> str:
    return tool.describe(tool.run(code))


def test_output_and_errors_in_the_order_they_were_written(
    sandbox: Sandbox, make_tool: Make
) -> None:
    tool = make_tool(sandbox)
    code = "import sys\nfor n in range(3):\n    print(n)\n    print('e', n, file=sys.stderr)"
    assert say(tool, code) == "0\ne 0\n1\ne 1\n2\ne 2"
    assert "ZeroDivisionError" in say(tool, "print('before')\n1/0")
    assert "SyntaxError" in say(tool, "1 +")
    assert tool.run("1/0").exit_code == 1


def test_a_kept_folder_goes_on_in_the_next_conversation(
    sandbox: Sandbox, make_tool: Make, tmp_path: Path
) -> None:
    first = "import os; os.mkdir('s'); open('a', 'w').write('1'); print('made')"
    assert say(make_tool(sandbox, folder=tmp_path), first) == "made"
    second = "open('a', 'a').write('2'); open('s/b', 'w'); print(open('a').read())"
    assert say(make_tool(sandbox, folder=tmp_path), second) == "12"


def test_nothing_is_kept_but_files(sandbox: Sandbox, make_tool: Make) -> None:
    tool = make_tool(sandbox)
    assert say(tool, "x = 1; open('/mnt/data/kept', 'w').write('yes')").startswith("[WARN]")
    assert "NameError" in say(tool, "print(x)")
    assert say(tool, "print(open('kept').read())") == "yes"
    assert (tool.workspace.data / "kept").read_text() == "yes"


def test_unusual_endings_are_said(sandbox: Sandbox, make_tool: Make) -> None:
    tool = make_tool(sandbox)
    assert say(tool, "pass").startswith("[WARN] No output")
    assert "exit code 3" in say(tool, "import os; os._exit(3)")
    assert say(tool, "import sys; sys.exit('why')") == "why"
    assert say(tool, "import os; os._exit(1)").startswith("[ERROR]")


def test_long_output_is_cut_in_the_middle(sandbox: Sandbox, make_tool: Make) -> None:
    tool = make_tool(sandbox, limits=Limits(output_chars=1000))
    text = say(tool, "print('a' * 5000); print('the end')")
    assert text.startswith("aaaa")
    assert text.endswith("the end")
    assert "[... 4,009 characters cut ...]" in text


def test_a_call_that_takes_too_long_is_stopped(sandbox: Sandbox, make_tool: Make) -> None:
    tool = make_tool(sandbox, limits=Limits(seconds=2))
    text = say(tool, "import time\nprint('started', flush=True)\ntime.sleep(60)")
    assert text.startswith("started\n[ERROR] Execution timed out after 2 seconds.")
    assert say(tool, "print('still here')") == "still here"


def test_cancelling_kills_the_process_tree(sandbox: Sandbox, make_tool: Make) -> None:
    tool = make_tool(sandbox)
    code = """
import os, time
os.fork()
for n in range(600):
    with open(f'/mnt/data/{os.getpid()}', 'w') as file:
        file.write(str(n))
    time.sleep(0.1)
"""

    async def cancel_it() -> None:
        reply = asyncio.ensure_future(_collect(tool, code))
        while len(list(tool.workspace.data.iterdir())) < 2:
            await asyncio.sleep(0.05)
        reply.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reply

    asyncio.run(cancel_it())
    files = sorted(tool.workspace.data.iterdir())
    before = [file.read_text() for file in files]
    time.sleep(0.5)
    assert [file.read_text() for file in files] == before
    assert say(tool, "print('next')") == "next"


async def _collect(tool: PythonTool, code: str) -> list[Message]:
    return await tool.process(call(code))


def test_a_cancel_event_stops_a_plain_call(sandbox: Sandbox, make_tool: Make) -> None:
    tool = make_tool(sandbox)
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    outcome = tool.run("import time; time.sleep(60)", cancel=cancel)
    assert outcome.stopped == "execution cancelled"


def test_files_can_be_kept_in_a_folder_of_yours(
    sandbox: Sandbox, make_tool: Make, tmp_path: Path
) -> None:
    (tmp_path / "input.csv").write_text("1,2\n")
    tool = make_tool(sandbox, folder=tmp_path)
    assert say(tool, "print(open('/mnt/data/input.csv').read())") == "1,2"
    assert say(tool, "open('/mnt/data/out', 'w').write('x')").startswith("[WARN]")
    tool.close()
    assert (tmp_path / "out").read_text() == "x"


def test_odd_text_in_code_and_output(sandbox: Sandbox, make_tool: Make) -> None:
    tool = make_tool(sandbox)
    assert say(tool, "print('é – 漢字 🎉')") == "é – 漢字 🎉"
    assert "SyntaxError" in say(tool, "print('\x00')")
    assert say(tool, "import sys; sys.stdout.buffer.write(b'\\xff\\xfe')") == "\ufffd\ufffd"


def test_a_dotted_recipient_is_answered(sandbox: Sandbox, make_tool: Make) -> None:
    tool = make_tool(sandbox)
    message = call("print(1)", recipient="python.exec")

    async def ask() -> list[Message]:
        return await tool.process(message)

    (reply,) = asyncio.run(ask())
    assert "there is no function python.exec" in reply.content[0].text  # type: ignore[attr-defined]


@pytest.mark.bubblewrap
def test_the_text_belongs_to_the_mode(make_tool: Make) -> None:
    from gptoss_tools.python.host import UnsafeHostSandbox

    host = UnsafeHostSandbox(i_know_this_is_unsafe=True)
    stateless = make_tool(host).tool_config.description or ""
    assert "fresh process" in stateless
    assert "120 seconds" in stateless
    stateful = make_tool(host, stateful=True).tool_config.description or ""
    native = ToolNamespaceConfig.python().description or ""
    assert stateful.split("Internet")[0] == native.split("Internet")[0]


def test_the_bare_host_needs_its_unsafe_name() -> None:
    from gptoss_tools.python.host import UnsafeHostSandbox

    with pytest.raises(SandboxError, match="use a jail"):
        UnsafeHostSandbox(i_know_this_is_unsafe=False)


@pytest.mark.bubblewrap
def test_the_readme_usage_of_the_original_with_only_the_import_changed() -> None:
    """Build the prompt, parse the model's call, process it, extend the conversation."""
    from openai_harmony import Conversation, SystemContent

    from gptoss_harmony.encoding import load_encoding

    require(shutil.which("bwrap") is not None, "bubblewrap is not installed")
    encoding = load_encoding()
    python_tool = PythonTool()
    system_message_content = SystemContent.new().with_tools(python_tool.tool_config)
    messages = [
        Message.from_role_and_content(Role.SYSTEM, system_message_content),
        Message.from_role_and_content(Role.USER, "What's the square root of 9001?"),
    ]
    assert encoding.render_conversation_for_completion(
        Conversation.from_messages(messages), Role.ASSISTANT
    )
    said = "<|channel|>analysis to=python code<|message|>print(9001 ** 0.5 > 94.87)<|call|>"
    output_tokens = encoding.encode(said, allowed_special="all")
    messages += encoding.parse_messages_from_completion_tokens(output_tokens, Role.ASSISTANT)
    last_message = messages[-1]
    assert last_message.recipient == "python"

    async def go_on() -> None:
        messages.extend(await python_tool.process(last_message))

    asyncio.run(go_on())
    python_tool.close()
    assert messages[-1].content[0].text == "True"
    assert encoding.render_conversation_for_completion(
        Conversation.from_messages(messages), Role.ASSISTANT
    )
