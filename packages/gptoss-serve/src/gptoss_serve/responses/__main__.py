"""`python -m gptoss_serve.responses`: the same as `gptoss serve`."""

import sys

from gptoss_harmony.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
