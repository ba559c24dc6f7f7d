"""The last step into a bubblewrap jail: sets bounds, drops root, starts the program.

It runs inside and is passed to the jail's interpreter as source text, so it uses the standard
library only. Its argument is JSON: user (null: stay), rlimits (name to value), folder, argv.
"""

import json
import os
import resource
import sys


def enter(order: dict) -> None:  # type: ignore[type-arg]
    """Become the jailed program; does not return."""
    os.umask(0o022)
    if order["user"] is not None:
        os.setgroups([])
        os.setresgid(order["user"], order["user"], order["user"])
        os.setresuid(order["user"], order["user"], order["user"])
    for name, value in order["rlimits"].items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))
    os.chdir(order["folder"])
    os.execv(order["argv"][0], order["argv"])


if __name__ == "__main__":
    enter(json.loads(sys.argv[1]))
