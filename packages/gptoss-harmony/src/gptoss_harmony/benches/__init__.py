"""Benchmarks: each prints a rate beside a limit or a peer measured in the same run."""
