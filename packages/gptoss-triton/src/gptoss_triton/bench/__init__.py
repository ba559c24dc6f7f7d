"""Benchmarks of the Triton engine: each rate beside the limit that the same run measured."""
