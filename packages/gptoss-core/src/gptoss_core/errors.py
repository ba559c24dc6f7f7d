"""What can go wrong in the reference model, as one tree.

```
HarmonyError (gptoss_harmony.errors)
└── CoreError            a failure of this package that a user can act on
    ├── ShapeError       tokens, lengths, caches or shards that do not fit together
    └── ParallelError    a launch or a split over processes that cannot work
```

Failures that the shared format already names keep those names: `CheckpointError` for a folder that
is not a checkpoint, `OutOfMemory` for weights that do not fit, `ContextOverflow` for positions past
the end of the rotary tables.
"""

from gptoss_harmony.errors import HarmonyError


class CoreError(HarmonyError):
    """Any failure of this package that a user can act on."""


class ShapeError(CoreError):
    """Tokens, lengths, caches or shards that do not fit together."""


class ParallelError(CoreError):
    """A launch or a split over processes that cannot work."""
