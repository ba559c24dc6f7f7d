"""A model catalogue for Codex, so that it offers apply_patch to gpt-oss.

Codex knows nothing about gpt-oss by itself and falls back to a profile without apply_patch. With
`model_catalog_json = "<file>"` in its config it reads this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def codex_catalog(names: Sequence[str], *, context_length: int) -> dict[str, Any]:
    """The catalogue with one entry per name of the model."""
    return {"models": [_entry(name, context_length) for name in names]}


def _entry(name: str, context_length: int) -> dict[str, Any]:
    efforts = {
        "low": "Fast answers with little thought",
        "medium": "Balances speed and thought",
        "high": "Thinks longest",
    }
    return {
        "slug": name,
        "display_name": name,
        "description": "gpt-oss, served by gptoss",
        "default_reasoning_level": "medium",
        "supported_reasoning_levels": [
            {"effort": effort, "description": text} for effort, text in efforts.items()
        ],
        "shell_type": "shell_command",
        "visibility": "list",
        "supported_in_api": True,
        "priority": 1,
        "availability_nux": None,
        "upgrade": None,
        "base_instructions": "You are a coding agent that works in the user's folder.",
        "supports_reasoning_summaries": True,
        "support_verbosity": False,
        "default_verbosity": None,
        "apply_patch_tool_type": "freeform",
        "truncation_policy": {"mode": "tokens", "limit": 10_000},
        "supports_parallel_tool_calls": False,
        "context_window": context_length,
        "experimental_supported_tools": [],
        "input_modalities": ["text"],
    }
