"""Make a device file of the host's disk."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import stat
for major, minor in ((8, 0), (254, 0), (259, 0), (1, 1)):
    def make():
        os.mknod(f"/tmp/{major}-{minor}", 0o600 | stat.S_IFBLK, os.makedev(major, minor))
        return "made"
    attempt(f"{major}:{minor}", make)
"""


def test_device_nodes(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
