"""The classic way out of a changed root."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
def escape():
    os.mkdir("/tmp/x")
    folder = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/x")
    os.fchdir(folder)
    return "outside"
attempt("chroot", escape)
attempt("pivot_root", lambda: libc.syscall(155, b"/tmp", b"/tmp") == 0 or None)
"""


def test_chroot_escape(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
