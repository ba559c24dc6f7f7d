"""Start threads until nothing else runs."""

from collections.abc import Callable

from gptoss_tools.python.sandbox import Outcome

CODE = """
import threading, time
count = 0
try:
    while count < 5000:
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        count += 1
except RuntimeError as error:
    print("HELD after", count, error)
print("ESCAPED" if count > 64 else "HELD", count, flush=True)
os._exit(0)
"""


def test_thread_bomb(attack: Callable[[str], Outcome]) -> None:
    attack(CODE)
