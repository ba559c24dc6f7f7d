"""Read the memory of the jail's first process."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(64)
local = Vector(ctypes.addressof(buffer), 64)
remote = Vector(0x400000, 64)
parent = os.getppid() or 1
vectors = (ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
attempt("process_vm_readv", lambda: libc.process_vm_readv(parent, *vectors))
attempt("mem", lambda: open(f"/proc/{parent}/mem", "rb").read(1))
attempt("descriptor", lambda: libc.syscall(438, libc.syscall(434, parent, 0), 0, 0))
"""


def test_memory_of_others(attack: Callable[[str], Outcome]) -> None:
    outcome = attack(
        "if os.getppid() in (0, os.getpid()): print('HELD alone'), os._exit(0)\n" + CODE
    )
    assert "HELD" in outcome.output
