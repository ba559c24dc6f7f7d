"""apply_patch as a tool: the contract, the wrappings of its argument, the three forms."""

import asyncio
import json
from pathlib import Path

import pytest
from openai_harmony import Author, Message, Role, TextContent

from gptoss_harmony.testing import ToolContract
from gptoss_tools.errors import PatchError
from gptoss_tools.patch.tool import ApplyPatchTool, patch_text

PATCH = "*** Begin Patch\n*** Add File: a.txt\n+x\n*** End Patch\n"


def call(text: str) -> Message:
    return Message(
        author=Author(role=Role.ASSISTANT),
        content=[TextContent(text=text)],
        channel="commentary",
        recipient="functions.apply_patch",
    )


class TestContract(ToolContract):
    good_call = call(PATCH)

    @pytest.fixture
    def tool(self, tmp_path: Path) -> ApplyPatchTool:
        return ApplyPatchTool(tmp_path)


def run(tool: ApplyPatchTool, text: str) -> str:
    (message,) = asyncio.run(_process(tool, text))
    assert message.author.name == "functions.apply_patch"
    assert message.channel == "commentary"
    (content,) = message.content
    assert isinstance(content, TextContent)
    return content.text


async def _process(tool: ApplyPatchTool, text: str) -> list[Message]:
    return await tool.process(call(text))


@pytest.mark.parametrize(
    "argument",
    [PATCH, json.dumps(PATCH), json.dumps({"input": PATCH}), json.dumps({"patch": PATCH})],
)
def test_every_wrapping_of_the_argument(tmp_path: Path, argument: str) -> None:
    assert run(ApplyPatchTool(tmp_path), argument) == "Done!"
    assert (tmp_path / "a.txt").read_text() == "x"


def test_raw_newlines_inside_json_strings_are_forgiven() -> None:
    assert patch_text('{"input": "a\nb"}') == "a\nb"


@pytest.mark.parametrize("argument", ['{"input": 3}', "{", '{"x": "y"}', '"unfinished'])
def test_arguments_without_a_patch(argument: str) -> None:
    with pytest.raises(PatchError):
        patch_text(argument)


def test_failures_are_told_to_the_model(tmp_path: Path) -> None:
    text = run(ApplyPatchTool(tmp_path), PATCH.replace("Add", "Delete").replace("+x\n", ""))
    assert text.startswith("Error: patch line 2: there is no file a.txt")


def test_dry_run(tmp_path: Path) -> None:
    assert "dry run" in run(ApplyPatchTool(tmp_path, dry_run=True), PATCH)
    assert list(tmp_path.iterdir()) == []


def test_the_function_the_model_was_trained_with() -> None:
    config = ApplyPatchTool().tool_config
    assert config.name == "functions"
    assert [tool.name for tool in config.tools] == ["apply_patch"]
    assert config.tools[0].parameters == {
        "type": "string",
        "description": "Formatted patch code",
        "default": "*** Begin Patch\n*** End Patch\n",
    }


def test_the_example_in_the_instructions_is_a_patch_that_applies(tmp_path: Path) -> None:
    sheet = ApplyPatchTool().instruction()
    example = sheet[sheet.index("Example:") :]
    start, stop = example.index("*** Begin Patch"), example.index("*** End Patch")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/greet.py").write_text(
        'def greet(name):\n    name = name.strip()\n    print("Hi", name)\n'
    )
    (tmp_path / "old.txt").write_text("")
    assert run(ApplyPatchTool(tmp_path), example[start:stop] + "*** End Patch") == "Done!"
    assert 'print("Hello,", name)' in (tmp_path / "src/hello.py").read_text()


def test_the_freeform_grammar_takes_what_the_parser_takes() -> None:
    from gptoss_tools.patch.grammar import parse_patch

    lark = pytest.importorskip("lark")
    definition = ApplyPatchTool().custom_tool()["format"]["definition"]
    parser = lark.Lark(definition, parser="earley")
    good = [
        PATCH,
        PATCH.rstrip("\n"),
        "*** Begin Patch\n*** Update File: a\n*** Move to: b\n@@ class A:\n x\n-y\n+z\n"
        "*** End of File\n*** Delete File: c\n*** End Patch\n",
        "*** Begin Patch\n*** Update File: a\n*** Move to: b\n*** End Patch",
    ]
    for text in good:
        parse_patch(text)
        parser.parse(text)
    for text in ["", "*** Begin Patch\n*** End Patch", PATCH.replace("+x", "x"), PATCH + "junk"]:
        with pytest.raises(PatchError):
            parse_patch(text)
        with pytest.raises(lark.exceptions.LarkError):
            parser.parse(text)


def test_the_freeform_grammar_constrains_a_real_engine_mask() -> None:
    llguidance = pytest.importorskip("llguidance")
    definition = ApplyPatchTool().custom_tool()["format"]["definition"]
    assert llguidance.LLMatcher.grammar_from_lark(definition)


def test_the_object_function_has_one_required_string() -> None:
    function = ApplyPatchTool().function_tool()
    assert function["parameters"]["required"] == ["input"]
    assert function["strict"] is True


@pytest.mark.parametrize("text", ['{"input": ' + "[" * 100_000, '{"a":' * 100_000, "\ud800"])
def test_what_no_patch_could_be_is_answered(tmp_path: Path, text: str) -> None:
    async def ask() -> list[Message]:
        return await ApplyPatchTool(tmp_path).process(call(text))

    answer = asyncio.run(ask())[0].content[0]
    assert isinstance(answer, TextContent)
    assert answer.text.startswith("Error: ")
    assert answer.text.encode("utf-8")
