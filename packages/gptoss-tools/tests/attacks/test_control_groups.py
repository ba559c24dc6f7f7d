"""Change the bounds from inside, or use the group's release program."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import glob
paths = glob.glob("/sys/fs/cgroup/**/release_agent", recursive=True)
paths += glob.glob("/sys/fs/cgroup/**/cgroup.procs", recursive=True)[:5]
paths += ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"]
for path in paths:
    attempt(path, lambda: os.open(path, os.O_WRONLY))
import resource
def raise_limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
attempt("rlimit", raise_limit)
"""


def test_control_groups(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
