"""Turn the kernel's switches: crash dumps, reboot keys, module loading."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe",
             "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/hostname",
             "/proc/sys/fs/binfmt_misc/register", "/proc/sys/net/ipv4/ip_forward"):
    attempt(path, lambda: os.open(path, os.O_WRONLY))
"""


def test_proc_switches(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
