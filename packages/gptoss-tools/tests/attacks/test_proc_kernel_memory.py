"""Read the kernel's or the machine's memory."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
for path in ("/proc/kcore", "/dev/mem", "/dev/kmem", "/dev/port", "/proc/kallsyms"):
    def look():
        data = open(path, "rb").read(4096)
        if path.endswith("kallsyms") and data.startswith(b"0" * 16):
            return None  # the addresses are blanked
        return len(data) or None
    attempt(path, look)
"""


def test_proc_kernel_memory(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
