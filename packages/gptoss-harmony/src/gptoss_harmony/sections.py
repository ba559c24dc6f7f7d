"""The text of system and developer messages: identity, effort, tools, channels, instructions.

```
You are ChatGPT, a large language model trained by OpenAI.      <- system
Knowledge cutoff: 2024-06
Current date: 2025-06-28

Reasoning: high

# Tools

## python
...

# Valid channels: analysis, commentary, final. Channel must be included for every message.
```
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

from openai_harmony import (
    DeveloperContent,
    SystemContent,
    ToolDescription,
    ToolNamespaceConfig,
)

from gptoss_harmony.errors import ConversationError
from gptoss_harmony.schema import typescript
from gptoss_harmony.schema_complete import complete_typescript

_HEADING: Final = re.compile(r"^#{1,6} .*$", re.MULTILINE)


def system_text(content: SystemContent, *, has_functions: bool, complete: bool) -> str:
    """Return what a system message says.

    Args:
        content: identity, dates, effort, tools, channels; parts that are None are left out.
        has_functions: whether the developer message defines functions.
        complete: write schemas with `schema_complete`.
    """
    top = [
        ("", content.model_identity),
        ("Knowledge cutoff: ", content.knowledge_cutoff),
        ("Current date: ", content.conversation_start_date),
    ]
    known = [label + value for label, value in top if value is not None]
    sections = ["\n".join(known)] if known else []
    if content.reasoning_effort is not None:
        sections.append(f"Reasoning: {content.reasoning_effort.value.lower()}")
    if content.tools:
        sections.append(tools_text(content.tools.items(), complete=complete))
    channels = content.channel_config
    if channels is not None and channels.valid_channels:
        line = f"# Valid channels: {', '.join(channels.valid_channels)}."
        if channels.channel_required:
            line += " Channel must be included for every message."
        if has_functions:
            line += "\nCalls to these tools must go to the commentary channel: 'functions'."
        sections.append(line)
    return "\n\n".join(sections)


def developer_text(content: DeveloperContent, *, complete: bool) -> str:
    """Return what a developer message says: instructions, then tools.

    Args:
        content: either part may be None.
        complete: write schemas with `schema_complete`.
    """
    sections = []
    if content.instructions is not None:
        sections += ["# Instructions", content.instructions]
    if content.tools:
        sections.append(tools_text(content.tools.items(), complete=complete))
    return "\n\n".join(sections)


def tools_text(tools: Iterable[tuple[str, ToolNamespaceConfig]], *, complete: bool) -> str:
    """Return the `# Tools` section, namespaces sorted by the name they are filed under."""
    ordered = [config for _, config in sorted(tools, key=lambda item: item[0].encode())]
    return "\n\n".join(["# Tools", *(_namespace_text(c, complete=complete) for c in ordered)])


def headings(text: str) -> list[tuple[int, str]]:
    """Return (byte offset, line) of every Markdown heading in a message."""
    found, offset, end = [], 0, 0
    for match in _HEADING.finditer(text):
        offset += len(text[end : match.start()].encode("utf-8", "surrogatepass"))
        end = match.start()
        found.append((offset, match.group()))
    return found


def _namespace_text(config: ToolNamespaceConfig, *, complete: bool) -> str:
    described = _lines(config.description or "")
    if not config.tools:
        return "\n".join([f"## {config.name}\n", *described])
    lines = [f"## {config.name}\n", *(f"// {line}" for line in described)]
    lines.append(f"namespace {config.name} {{\n")
    for tool in config.tools:
        lines += [f"// {line}" for line in _lines(tool.description)]
        parameters, declarations = _parameters(tool, complete=complete)
        lines += declarations
        lines.append(f"type {tool.name} = ({parameters}) => any;\n")
    lines.append(f"}} // namespace {config.name}")
    return "\n".join(lines)


def _parameters(tool: ToolDescription, *, complete: bool) -> tuple[str, list[str]]:
    """The parameter list of a function, and types to declare before it."""
    if tool.parameters is None:
        return "", []
    try:
        schema = json.loads(json.dumps(tool.parameters, allow_nan=False))
        text, declarations = complete_typescript(schema) if complete else (typescript(schema), [])
    except (TypeError, ValueError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else f"not JSON: {error}"
        raise ConversationError(
            f"the parameters of the tool {tool.name!r} are {problem}"
        ) from error
    return f"_: {text}", declarations


def _lines(text: str) -> list[str]:
    """Split at line feeds, a carriage return before one dropped; no empty line at the end."""
    *lines, last = text.split("\n")
    return [line.removesuffix("\r") for line in lines] + ([last] if last else [])
