"""The shared format and contracts of gptoss."""

from gptoss_harmony.engine import (
    Constraint,
    Engine,
    EngineSpec,
    EngineStats,
    Generation,
    Prompt,
    Sampling,
    TokenLogprob,
    TokenOutput,
)
from gptoss_harmony.plugins import open_engine
from gptoss_harmony.spans import Span
from gptoss_harmony.tool import Tool, ToolReply

__all__ = [
    "Constraint",
    "Engine",
    "EngineSpec",
    "EngineStats",
    "Generation",
    "Prompt",
    "Sampling",
    "Span",
    "TokenLogprob",
    "TokenOutput",
    "Tool",
    "ToolReply",
    "open_engine",
]
