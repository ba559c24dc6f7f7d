r"""Patches <-> the operations of `apply_patch_call`: one for each file of a patch.

>>> patch_operations("*** Begin Patch\n*** Add File: a\n+x\n*** End Patch\n")
[{'type': 'create_file', 'path': 'a', 'diff': '+x\n'}]

An operation carries the body of the file's section as it stands. Renaming has no operation: a
`*** Move to:` line stays in the body, and the client that cannot apply it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KINDS = {
    "*** Add File: ": "create_file",
    "*** Delete File: ": "delete_file",
    "*** Update File: ": "update_file",
}
_HEADERS = {kind: header for header, kind in _KINDS.items()}
_BEGIN, _END = "*** Begin Patch", "*** End Patch"


def patch_operations(text: str) -> list[dict[str, Any]]:
    """The operations of a patch; text without any file is an update of no file."""
    operations: list[dict[str, Any]] = []
    for line in text.split("\n"):
        header = next((header for header in _KINDS if line.startswith(header)), None)
        if header is not None:
            path = line.removeprefix(header).strip()
            operations.append({"type": _KINDS[header], "path": path, "diff": ""})
        elif operations and line.strip() not in (_BEGIN, _END):
            operations[-1]["diff"] += f"{line}\n"
    for operation in operations:
        if operation["type"] == "delete_file":
            del operation["diff"]
        else:
            # The text's own last newline, and blank lines that came with it.
            operation["diff"] = operation["diff"].rstrip("\n") + "\n" * bool(operation["diff"])
    return operations or [{"type": "update_file", "path": "", "diff": text}]


def patch_text_of(operation: Any) -> str:
    """The patch of one operation, in the words that the model was trained with."""
    given = operation if isinstance(operation, Mapping) else {}
    header = _HEADERS.get(str(given.get("type")), "*** Update File: ")
    diff = given.get("diff")
    body = diff if isinstance(diff, str) else ""
    if body and not body.endswith("\n"):
        body += "\n"
    return f"{_BEGIN}\n{header}{given.get('path', '')}\n{body}{_END}\n"
