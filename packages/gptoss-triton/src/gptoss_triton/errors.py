"""What can go wrong in the Triton engine, beyond the shared tree.

```
EngineError (gptoss_harmony.errors)
└── TritonError
    ├── UnsupportedGpu    no CUDA, or a card or driver that the kernels do not run on
    └── ConstraintFailed  a request's constraint raised, or allows no token
```

Out of memory is the shared `OutOfMemory`, said before anything is loaded; a bad checkpoint the
shared `CheckpointError`.
"""

from gptoss_harmony.errors import EngineError


class TritonError(EngineError):
    """A failure of this engine that a user can act on."""


class UnsupportedGpu(TritonError):
    """No CUDA device, or one that the kernels do not run on; the message names the way out."""


class ConstraintFailed(TritonError):
    """A request's constraint raised, or allows no token.

    Args:
        message: what happened.
        number: of the request's sequence.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number
