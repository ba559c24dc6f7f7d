"""apply_patch as a tool: the function the model calls, its texts, and its freeform form.

```
tool = ApplyPatchTool("project")
developer = developer.with_instructions(tool.instruction()).with_tools(tool.tool_config)
messages = await tool.process(call)        # a call to `functions.apply_patch`
```
"""

from __future__ import annotations

import asyncio
import json
import os
from importlib import resources
from typing import Any

from openai_harmony import Message, ToolDescription, ToolNamespaceConfig

from gptoss_harmony.tool import ToolReply
from gptoss_tools.errors import PatchError
from gptoss_tools.patch.apply import Report, apply_patch
from gptoss_tools.patch.root import PROTECTED
from gptoss_tools.reply import answer, call_text, single_reply

_EMPTY_PATCH = "*** Begin Patch\n*** End Patch\n"


class ApplyPatchTool:
    """Edits files below one folder, all or nothing.

    Args:
        root: the folder; nothing outside of it is read or written.
        dry_run: check patches and write nothing.
        final_newline: end added files with a newline even where the patch does not.
        protected: names that no path may contain.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = ".",
        *,
        dry_run: bool = False,
        final_newline: bool = False,
        protected: frozenset[str] = PROTECTED,
    ) -> None:
        self._root = root
        self._dry_run = dry_run
        self._final_newline = final_newline
        self._protected = protected

    @property
    def name(self) -> str:
        """`apply_patch`; calls are addressed to `functions.apply_patch`."""
        return "apply_patch"

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        """The developer function that the model was trained to call with one string."""
        parameters = {
            "type": "string",
            "description": "Formatted patch code",
            "default": _EMPTY_PATCH,
        }
        tool = ToolDescription.new(self.name, "Patch a file", parameters=parameters)
        return ToolNamespaceConfig(name="functions", description=None, tools=[tool])

    def instruction(self) -> str:
        """The sheet on the patch language, for the developer message."""
        return _data("instructions.md")

    def function_tool(self) -> dict[str, Any]:
        """The tool for APIs that want an object of arguments, in the Responses API's form."""
        return {
            "type": "function",
            "name": self.name,
            "description": "Edit files with a patch. " + self.instruction(),
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {
                    "input": {"type": "string", "description": "The whole patch."},
                },
                "required": ["input"],
                "additionalProperties": False,
            },
        }

    def custom_tool(self) -> dict[str, Any]:
        """The freeform tool: the argument is the patch itself, held to a Lark grammar."""
        return {
            "type": "custom",
            "name": self.name,
            "description": "Edit files with a patch; write the patch itself, not JSON.",
            "format": {"type": "grammar", "syntax": "lark", "definition": _data("grammar.lark")},
        }

    def apply(self, argument: str) -> Report:
        """Apply a call's argument: the patch, the patch as a JSON string, or `{"input": patch}`.

        Raises:
            PatchError: nothing was written.
        """
        return apply_patch(
            patch_text(argument),
            self._root,
            dry_run=self._dry_run,
            final_newline=self._final_newline,
            protected=self._protected,
        )

    def process(self, message: Message) -> ToolReply:
        """Apply the patch in a call; the answer starts with `Done!` or says what failed."""
        return single_reply(self._answer(message))

    async def _answer(self, message: Message) -> Message:
        name = message.recipient or f"functions.{self.name}"
        try:
            # A thread that started writing finishes even if the caller goes away.
            report = await asyncio.to_thread(self.apply, call_text(message))
        except (PatchError, OSError) as error:
            return answer(message, f"Error: {error}", name=name)
        done = "Done! (dry run: nothing was written)" if report.dry_run else "Done!"
        return answer(message, "\n".join([done, *report.notes]), name=name)


def patch_text(argument: str) -> str:
    """The patch inside a call's argument, whichever of the usual wrappings it came in."""
    stripped = argument.strip()
    if not stripped.startswith(("{", '"')):
        return argument
    try:
        value = json.loads(stripped, strict=False)
    except (ValueError, RecursionError) as error:
        raise PatchError(
            f"the argument is neither a patch nor JSON that holds one: {error}"
        ) from error
    if isinstance(value, dict):
        value = next((value[key] for key in ("input", "patch") if key in value), None)
    if not isinstance(value, str):
        raise PatchError('the argument holds no patch; send it as text or as {"input": "..."}')
    return value


def _data(name: str) -> str:
    return resources.files("gptoss_tools.patch").joinpath(name).read_text(encoding="utf-8")
