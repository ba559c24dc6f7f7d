"""The last step into a bubblewrap jail: sets bounds, drops root, starts the program.

It runs inside and is passed to the jail's interpreter as source text, so it uses the standard
library only, and little of it, to be quick. Its arguments: the user to become (empty: stay), the
folder to start in, bounds as `RLIMIT_NAME=value`, `--`, the program and its arguments.
"""

import os
import resource
import sys


def enter(arguments: list[str]) -> None:
    """Become the jailed program; does not return."""
    user, folder = arguments[:2]
    end = arguments.index("--")
    os.umask(0o022)
    if user:
        number = int(user)
        os.setgroups([])
        os.setresgid(number, number, number)
        os.setresuid(number, number, number)
    for bound in arguments[2:end]:
        name, _, text = bound.partition("=")
        kind, value = getattr(resource, name), int(text)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    os.chdir(folder)
    os.execv(arguments[end + 1], arguments[end + 1 :])


if __name__ == "__main__":
    enter(sys.argv[1:])
