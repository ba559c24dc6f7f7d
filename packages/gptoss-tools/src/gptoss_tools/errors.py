"""What can go wrong in the tools, as one tree under the shared `ToolError`.

```
ToolError                (gptoss_harmony)
├── PatchError           a patch that cannot be applied; nothing was written
│   └── JournalError     an interrupted commit that needs a person to look at it
├── SandboxError         a jail that cannot be built or that failed its self-test
└── BackendError         a search or page that could not be had
    └── AddressRefused   a URL that leads where the browser must not go
```

A tool that serves a model turns these into messages; a program or a command sees them as they are.
"""

from gptoss_harmony.errors import ToolError


class PatchError(ToolError):
    """A patch that cannot be parsed, matched or written; the tree is as it was."""


class JournalError(PatchError):
    """An interrupted commit that cannot be finished because its files were edited since."""


class SandboxError(ToolError):
    """A jail that cannot be built or that failed its self-test."""


class BackendError(ToolError):
    """A search or a page that could not be had."""


class AddressRefused(BackendError):
    """A URL that leads where the browser must not go: other schemes, private addresses."""
