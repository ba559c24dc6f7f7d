"""Shell calls: what the model writes, the client's action, and the output on its way back.

The model is told of one function, `shell`, whose arguments name commands. What it writes is read
with patience: models that learnt other shells send `command` or `cmd`, as a text or as words.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from gptoss_serve.errors import InvalidRequest

_MILLISECONDS = {"type": "integer", "description": "Stop the command after this many milliseconds."}
LOCAL_SHELL_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "command": {
            "type": "array",
            "items": {"type": "string"},
            "description": 'The program and its arguments, such as ["bash", "-lc", "ls"].',
        },
        "workdir": {"type": "string", "description": "The folder to run in."},
        "timeout_ms": _MILLISECONDS,
    },
    "required": ["command"],
    "additionalProperties": False,
}
SHELL_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "commands": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Shell commands; they may run at the same time.",
        },
        "timeout_ms": _MILLISECONDS,
        "max_output_length": {
            "type": "integer",
            "description": "Most characters of output of each command.",
        },
    },
    "required": ["commands"],
    "additionalProperties": False,
}


def local_shell_action(text: str) -> dict[str, Any]:
    """The action of a `local_shell_call` from the arguments of a call."""
    given = _arguments(text)
    command = _first(given, "command", "cmd", "commands")
    words = [str(word) for word in command] if isinstance(command, list) else []
    if isinstance(command, str):
        words = ["bash", "-lc", command]
    action: dict[str, Any] = {"type": "exec", "command": words, "env": _environment(given)}
    if (seconds := _whole(given.get("timeout_ms", given.get("timeout")))) is not None:
        action["timeout_ms"] = seconds
    folder = _first(given, "workdir", "working_directory", "cwd")
    if isinstance(folder, str):
        action["working_directory"] = folder
    return action


def shell_action(text: str) -> dict[str, Any]:
    """The action of a `shell_call` from the arguments of a call."""
    given = _arguments(text)
    commands = given.get("commands")
    if isinstance(commands, list):
        lines = [_line(command) for command in commands]
    else:
        one = commands if commands is not None else _first(given, "command", "cmd")
        lines = [] if one is None else [_line(one)]
    return {
        "commands": lines,
        "timeout_ms": _whole(given.get("timeout_ms")),
        "max_output_length": _whole(given.get("max_output_length")),
    }


def shell_arguments(action: Any) -> str:
    """What the model wrote, from the action of an item that comes back."""
    given = action if isinstance(action, Mapping) else {}
    named = {"working_directory": "workdir"}
    kept = ("command", "commands", "env", "timeout_ms", "max_output_length", "working_directory")
    written = {named.get(key, key): given[key] for key in kept if given.get(key)}
    return json.dumps(written, ensure_ascii=False)


def shell_output(output: Any, where: str) -> str:
    """What the model reads of a `shell_call_output`.

    Raises:
        InvalidRequest: it is no list of outputs.
    """
    if isinstance(output, str):
        return output
    if not isinstance(output, list) or not all(isinstance(entry, Mapping) for entry in output):
        raise InvalidRequest(
            f"{where} is a list of objects with stdout, stderr and outcome", param=where
        )
    return "\n".join(_said(entry) for entry in output)


def _said(entry: Mapping[str, Any]) -> str:
    parts = [str(entry.get(name) or "").rstrip("\n") for name in ("stdout", "stderr")]
    outcome = entry.get("outcome")
    outcome = outcome if isinstance(outcome, Mapping) else {}
    if outcome.get("type") == "timeout":
        parts.append("[timed out]")
    else:
        parts.append(f"[exit code {outcome.get('exit_code', 'unknown')}]")
    return "\n".join(part for part in parts if part)


def _arguments(text: str) -> Mapping[str, Any]:
    try:
        given = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        given = text
    if isinstance(given, Mapping):
        return given
    # Neither the object that was asked for nor anything else: the text itself is the command.
    return {"command": given if isinstance(given, list) else text} if text.strip() else {}


def _line(command: Any) -> str:
    """A command as one line for a shell."""
    if not isinstance(command, list):
        return str(command)
    words = [str(word) for word in command]
    if len(words) == 3 and words[0].rpartition("/")[2] in ("bash", "sh") and words[1][:1] == "-":
        return words[2]
    return shlex.join(words)


def _first(given: Mapping[str, Any], *names: str) -> Any:
    return next((given[name] for name in names if given.get(name) is not None), None)


def _whole(value: Any) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value < 2**53 else None


def _environment(given: Mapping[str, Any]) -> dict[str, str]:
    env = given.get("env")
    return {str(k): str(v) for k, v in env.items()} if isinstance(env, Mapping) else {}
