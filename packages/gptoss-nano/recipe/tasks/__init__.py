"""One family of conversations a file; each has `make(rng, words, effort) -> Episode`."""
