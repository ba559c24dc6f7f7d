"""The system calls that jailed code does not get, as a BPF program for the kernel.

Most calls stay allowed; refused are those that make namespaces, mounts, keys, kernel modules or
traces of other processes, sockets other than UNIX and internet ones (a vsock reaches the
hypervisor from any network namespace), and typing into a terminal. See seccomp(2) for the format.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Sequence

from gptoss_tools.errors import SandboxError

_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data

# Names in the order of the two columns below; -1 where the architecture lacks the call.
_REFUSED: dict[str, tuple[int, int]] = {
    # name: (x86_64, aarch64)
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "modify_ldt": (154, -1),
    "uselib": (134, -1),
    "ustat": (136, -1),
    "sysfs": (139, -1),
}
_SPECIAL = {"clone": (56, 220), "clone3": (435, 435), "socket": (41, 198), "ioctl": (16, 29)}
_AUDIT_ARCHITECTURE = (0xC000003E, 0xC00000B7)
_NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
_NETLINK = 16
_TYPING = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_X32 = 0x40000000


def seccomp_program(machine: str | None = None) -> bytes:
    """The filter for this machine, ready for `bwrap --seccomp`.

    Args:
        machine: x86_64 or aarch64; None asks the platform.

    Raises:
        SandboxError: the processor is neither.
    """
    name = machine or platform.machine()
    columns = {"x86_64": 0, "amd64": 0, "aarch64": 1, "arm64": 1}
    if name.lower() not in columns:
        raise SandboxError(f"no system call filter for {name}; use the Docker jail there")
    column = columns[name.lower()]
    refuse = _ERRNO | errno.EPERM
    program = [
        _statement(_LOAD, _ARCHITECTURE),
        _jump(_EQUAL, _AUDIT_ARCHITECTURE[column], 1, 0),
        _statement(_RETURN, _KILL),
        _statement(_LOAD, _NUMBER),
    ]
    if column == 0:
        program += [_jump(_GREATER_EQUAL, _X32, 0, 1), _statement(_RETURN, refuse)]
    for numbers in _REFUSED.values():
        if numbers[column] >= 0:
            program += [_jump(_EQUAL, numbers[column], 0, 1), _statement(_RETURN, refuse)]
    # clone3 hides its flags behind a pointer: say that it does not exist, so that libc uses clone.
    program += [
        _jump(_EQUAL, _SPECIAL["clone3"][column], 0, 1),
        _statement(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    program += _argument_rule(_SPECIAL["clone"][column], 0, (_NEW_NAMESPACES,), bits=True)
    program += _argument_rule(_SPECIAL["ioctl"][column], 1, _TYPING)
    program += _families_rule(_SPECIAL["socket"][column])
    program.append(_statement(_RETURN, _ALLOW))
    return b"".join(program)


def _argument_rule(
    number: int, argument: int, values: Sequence[int], *, bits: bool = False
) -> list[bytes]:
    """Refuse the call where an argument is one of `values` (or has one of their bits)."""
    body = [_statement(_LOAD, _ARGUMENT + 8 * argument)]
    for value in values:
        body += [
            _jump(_ANY_BIT if bits else _EQUAL, value, 0, 1),
            _statement(_RETURN, _ERRNO | errno.EPERM),
        ]
    body.append(_statement(_RETURN, _ALLOW))
    return [_jump(_EQUAL, number, 0, len(body)), *body]


def _families_rule(number: int) -> list[bytes]:
    """Allow sockets of known families only."""
    body = [_statement(_LOAD, _ARGUMENT)]
    for family in _FAMILIES:
        body += [_jump(_EQUAL, family, 0, 1), _statement(_RETURN, _ALLOW)]
    body += [
        # Routing messages only: libraries list the interfaces with them.
        _jump(_EQUAL, _NETLINK, 0, 3),
        _statement(_LOAD, _ARGUMENT + 16),
        _jump(_EQUAL, 0, 0, 1),
        _statement(_RETURN, _ALLOW),
        _statement(_RETURN, _ERRNO | errno.EACCES),
    ]
    return [_jump(_EQUAL, number, 0, len(body)), *body]


def _statement(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)


def _jump(code: int, value: int, then: int, otherwise: int) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)
