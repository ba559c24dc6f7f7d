"""apply_patch: parse a patch, find its places, check everything in memory, write all or nothing."""
