"""API keys, from an argument or from the environment."""

from __future__ import annotations

import os

from gptoss_tools.errors import BackendError


def api_key(given: str | None, variable: str, service: str) -> str:
    """The key of a service.

    Raises:
        BackendError: there is none; the message names the variable.
    """
    key = given or os.environ.get(variable)
    if not key:
        raise BackendError(f"no key for {service}: set the environment variable {variable}")
    return key
