"""What is installed: engines, commands, benches and tools, found by entry point.

```
engine = open_engine("torch", "nano", context=4096)
engine = open_engine("auto", "./gpt-oss-20b")      # triton, else metal, else torch
```

A wheel offers an engine by naming its class in the entry-point group `gptoss.engines`; a command, a
bench and a tool likewise. Only what is chosen is imported.
"""

from __future__ import annotations

from dataclasses import fields
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gptoss_harmony.engine import Engine
from gptoss_harmony.errors import NotInstalled, UsageError

ENGINES = "gptoss.engines"
COMMANDS = "gptoss.commands"
BENCHES = "gptoss.benches"
TOOLS = "gptoss.tools"

# The order in which `auto` looks, and the wheel that brings each engine or command, so that a
# missing one is answered with the line that installs it.
AUTO_ORDER = ("triton", "metal", "torch")
WHEEL_OF_ENGINE = {
    "torch": "gptoss-core",
    "triton": "gptoss-triton",
    "metal": "gptoss-metal",
    "transformers": "gptoss-serve",
    "vllm": "gptoss-serve",
    "ollama": "gptoss-serve",
    "scripted": "gptoss-harmony",
}
WHEEL_OF_COMMAND = {
    "train": "gptoss-core",
    "tool": "gptoss-tools",
    "chat": "gptoss-serve",
    "serve": "gptoss-serve",
}


def discover(group: str) -> dict[str, EntryPoint]:
    """Return the installed entry points of a group by name; nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}


def load(point: EntryPoint) -> Any:
    """Import what an entry point names, turning a broken wheel into one sentence."""
    try:
        return point.load()
    except ImportError as error:
        wheel = point.dist.name if point.dist else point.value
        raise NotInstalled(
            f"{point.name} of {wheel} cannot be imported ({error}); "
            f"repair it with: pip install --upgrade {wheel}"
        ) from error


def engine_class(name: str) -> type[Engine]:
    """Import the engine called `name`.

    Raises:
        NotInstalled: no installed wheel has it; the message has the pip line.
        UsageError: no wheel that we know has it.
    """
    installed = discover(ENGINES)
    if name in installed:
        loaded: type[Engine] = load(installed[name])
        return loaded
    if name in WHEEL_OF_ENGINE:
        raise NotInstalled(
            f"engine {name!r} is not installed; get it with: pip install {WHEEL_OF_ENGINE[name]}"
        )
    raise UsageError(f"there is no engine {name!r}; installed: {', '.join(installed) or 'none'}")


def choose_engine() -> tuple[str, list[str]]:
    """Pick what `auto` means here.

    Returns:
        The name, and a reason for each better engine that was passed over.

    Raises:
        NotInstalled: none of the engines that run a checkpoint is installed.
    """
    installed = discover(ENGINES)
    passed_over = []
    for name in AUTO_ORDER:
        if name not in installed:
            passed_over.append(f"{name} is not installed")
            continue
        reason = unavailable(engine_class(name))
        if reason is None:
            return name, passed_over
        passed_over.append(f"{name}: {reason}")
    raise NotInstalled(
        f"no engine can run here ({'; '.join(passed_over)}); "
        "get the one that runs anywhere with: pip install gptoss-core"
    )


def unavailable(engine: type[Engine]) -> str | None:
    """Say why an engine cannot run on this machine, or None; engines may define `unavailable`."""
    probe = getattr(engine, "unavailable", None)
    reason: str | None = probe() if probe is not None else None
    return reason


def open_engine(name: str, checkpoint: str, **options: Any) -> Engine:
    """Open `checkpoint` with the engine called `name` (`auto` picks one).

    Args:
        name: an installed engine, or `auto`.
        checkpoint: an `original/` or Hugging Face folder, a `model.bin`, a hub id, or `nano`.
        options: fields of the engine's `Options`.

    Raises:
        HarmonyError: with what is wrong and what to do about it.
    """
    if name == "auto":
        name, _ = choose_engine()
    engine = engine_class(name)
    known = {field.name for field in fields(engine.Options)}
    if unknown := sorted(set(options) - known):
        raise UsageError(
            f"engine {name!r} has no option {', '.join(unknown)}; "
            f"it has: {', '.join(sorted(known))}"
        )
    return engine.open(str(checkpoint), engine.Options(**options))
