"""Make a user namespace and be root in there."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
kinds = {"user": 0x10000000, "mount": 0x20000, "net": 0x40000000, "pid": 0x20000000}
for name, flag in kinds.items():
    attempt(f"unshare {name}", lambda: libc.unshare(flag) == 0 or None)
def clone():
    pid = libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return None if pid == -1 else pid
attempt("clone", clone)
attempt("setns", lambda: libc.setns(os.open("/proc/self/ns/net", os.O_RDONLY), 0) == 0 or None)
"""


def test_namespaces(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
