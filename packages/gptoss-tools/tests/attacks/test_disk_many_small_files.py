"""Use up the disk's entries."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
print("HELD before", flush=True)
for number in range(200_000):
    open(f"/mnt/data/{number}", "w").close()
print("ESCAPED")
"""


def test_disk_many_small_files(attack: Callable[[str], Outcome]) -> None:
    outcome = attack(CODE)
    assert "files in /mnt/data" in str(outcome.stopped)
