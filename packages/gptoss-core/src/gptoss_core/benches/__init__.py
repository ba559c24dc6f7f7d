"""Benchmarks of the reference model, each beside a peer measured in the same run."""
