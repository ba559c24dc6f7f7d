"""`python -m gptoss_serve.chat`: the same as `gptoss chat`."""

import sys

from gptoss_harmony.cli import main

if __name__ == "__main__":
    sys.exit(main(["chat", *sys.argv[1:]]))
