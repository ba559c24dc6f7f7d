"""Fill the disk in folders that the counter comes to last."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import time
print("HELD before", flush=True)
for number in range(400):
    os.mkdir(f"/mnt/data/{number}")
names = os.listdir("/mnt/data")
for name in names[300:304] + names[-4:]:
    with open(f"/mnt/data/{name}/file", "wb") as file:
        file.write(b"x" * (8 << 20))
    time.sleep(0.05)
time.sleep(1)
print("ESCAPED")
"""


def test_disk_among_many_folders(attack: Callable[[str], Outcome]) -> None:
    assert "MiB in /mnt/data" in str(attack(CODE).stopped)
