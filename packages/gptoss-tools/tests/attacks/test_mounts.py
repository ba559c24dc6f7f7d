"""Mount, remount or move what is mounted."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
attempt("tmpfs", lambda: libc.mount(b"x", b"/tmp", b"tmpfs", 0, None) == 0 or None)
attempt("remount", lambda: libc.mount(b"", b"/", b"", 0x20 | 0x1000, None) == 0 or None)
attempt("umount", lambda: libc.umount2(b"/mnt/data", 2) == 0 or None)
attempt("fsopen", lambda: libc.syscall(430, b"tmpfs", 0))
attempt("open_tree", lambda: libc.syscall(428, -100, b"/", 1))
"""


def test_mounts(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
