"""What can go wrong in the shared format, as one tree.

```
HarmonyError
├── UsageError           a flag or argument that makes no sense
├── NotInstalled         an optional package, extra or program is missing
├── ConversationError    a conversation or schema that cannot be rendered
├── ParseError           tokens that are not harmony (strict mode only)
├── GrammarError         a schema or grammar that cannot be enforced
├── CheckpointError      a folder, header, shape or scale that is not a gpt-oss checkpoint
├── ToolError            a tool that cannot be built or found
└── EngineError          an engine failed while it served a request
    ├── Unsupported      the engine does not have what was asked, by name
    ├── ContextOverflow  prompt and answer do not fit the context
    └── OutOfMemory      weights or cache do not fit the device
```

Each message says what happened, where, and what to do about it.
"""


class HarmonyError(Exception):
    """Any failure that a user can act on."""


class UsageError(HarmonyError):
    """A flag or argument that makes no sense."""


class NotInstalled(HarmonyError):
    """An optional package, extra or program is missing; the message has the pip line."""


class ConversationError(HarmonyError):
    """A conversation or schema that cannot be rendered."""


class ParseError(HarmonyError):
    """Tokens that are not harmony; raised in strict mode only."""


class GrammarError(HarmonyError):
    """A schema or grammar that cannot be enforced.

    Attributes:
        part: the channel or function that it is for, where it is one part's fault.
    """

    def __init__(self, message: str, *, part: str | None = None) -> None:
        super().__init__(message)
        self.part = part


class CheckpointError(HarmonyError):
    """A folder, header, shape or scale that is not a gpt-oss checkpoint."""


class ToolError(HarmonyError):
    """A tool that cannot be built or found."""


class EngineError(HarmonyError):
    """An engine failed while it served a request."""


class Unsupported(EngineError):
    """The engine does not have what was asked; the message names it."""


class ContextOverflow(EngineError):
    """Prompt and answer do not fit the context."""


class OutOfMemory(EngineError):
    """Weights or cache do not fit the device."""
