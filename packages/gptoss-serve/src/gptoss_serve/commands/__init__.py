"""What this package adds to the `gptoss` command."""
