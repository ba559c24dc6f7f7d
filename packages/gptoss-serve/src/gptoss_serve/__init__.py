"""Terminal chat, Responses API and Chat Completions for gpt-oss over any engine."""

from gptoss_serve.app import create_app
from gptoss_serve.client import Client
from gptoss_serve.session import Session
from gptoss_serve.settings import ServerSettings
from gptoss_serve.toolbox import Toolbox
from gptoss_serve.turn import Budget, Turn

__all__ = ["Budget", "Client", "ServerSettings", "Session", "Toolbox", "Turn", "create_app"]
