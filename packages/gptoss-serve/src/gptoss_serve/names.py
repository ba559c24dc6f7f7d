"""Names that the model can call for names that clients chose, and the way back.

A recipient in a harmony header is one word: letters, digits, `_`, `-` and `.`. `my tool` becomes
`my_tool`, a function `spawn` in the namespace `agents` becomes `agents__spawn`, and a name that
is taken gets `_2`.
"""

from __future__ import annotations

import re
from collections.abc import Container

_STRANGE = re.compile(r"[^A-Za-z0-9_-]")


def callable_name(name: str, *, namespace: str | None = None, taken: Container[str] = ()) -> str:
    """Return the name under which the model calls a function.

    Args:
        name: the client's.
        namespace: the client's group of functions, if any.
        taken: names that are in use.
    """
    whole = name if namespace is None else f"{namespace}__{name}"
    wanted = _STRANGE.sub("_", whole) or "_"
    if wanted[0].isdigit() or wanted[0] == "-":
        wanted = f"_{wanted}"
    chosen, number = wanted, 2
    while chosen in taken:
        chosen, number = f"{wanted}_{number}", number + 1
    return chosen
