"""Ask the kernel for another user or for capabilities."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("setuid", lambda: os.setuid(0) or os.getuid() == 0)
attempt("setresuid", lambda: os.setresuid(0, 0, 0) or os.getuid() == 0)
attempt("setgid", lambda: os.setgid(0) or os.getgid() == 0)
attempt("setgroups", lambda: os.setgroups([0]) or "set")
with open("/proc/self/status") as file:
    lines = dict(line.split(":", 1) for line in file)
attempt("capabilities", lambda: int(lines["CapEff"], 16) or int(lines["CapPrm"], 16) or None)
"""


def test_setuid_calls(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
