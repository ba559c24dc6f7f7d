"""The name of the served model and the other names that clients use for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from gptoss_harmony import EngineSpec
from gptoss_serve.errors import NotFound


class ModelNames:
    """One model under several names.

    Args:
        spec: of the engine.
        name: what `/v1/models` lists first; None takes the engine's model id.
        aliases: other names; the usual ones of gpt-oss-20b and gpt-oss-120b are known.
    """

    def __init__(
        self, spec: EngineSpec, *, name: str | None = None, aliases: Sequence[str] = ()
    ) -> None:
        self.name = name or spec.model_id
        self.spec = spec
        self._created = int(time.time())
        names = [self.name, spec.model_id, *aliases]
        for size in ("20b", "120b"):
            if any(size in known for known in names):
                names += [f"gpt-oss-{size}", f"gpt-oss:{size}", f"openai/gpt-oss-{size}"]
        self.names = list(dict.fromkeys(names))

    def resolve(self, asked: str | None) -> str:
        """Return the name to echo.

        Raises:
            NotFound: another model.
        """
        if asked is None:
            return self.name
        if asked not in self.names:
            raise NotFound(
                f"the model {asked!r} is not served here; there is {', '.join(self.names)} "
                "(gptoss serve --alias adds a name)",
                param="model",
                code="model_not_found",
            )
        return asked

    def entry(self, name: str) -> dict[str, Any]:
        """A model as `/v1/models` shows it."""
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "gptoss",
            "root": self.name,
            "max_model_len": self.spec.context_length,
        }

    def listing(self) -> dict[str, Any]:
        """All names."""
        return {"object": "list", "data": [self.entry(name) for name in self.names]}
