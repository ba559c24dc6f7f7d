"""Benchmarks of the tools; each row stands beside a peer measured in the same run."""
