"""The three tools that gpt-oss was trained with, for any agent: browser, python, apply_patch."""

from gptoss_tools.browser.backends.corpus import CorpusBackend
from gptoss_tools.browser.backends.exa import ExaBackend
from gptoss_tools.browser.backends.web import WebBackend
from gptoss_tools.browser.backends.youcom import YouComBackend
from gptoss_tools.browser.tool import SimpleBrowserTool
from gptoss_tools.patch.tool import ApplyPatchTool
from gptoss_tools.python.tool import PythonTool

__all__ = [
    "ApplyPatchTool",
    "CorpusBackend",
    "ExaBackend",
    "PythonTool",
    "SimpleBrowserTool",
    "WebBackend",
    "YouComBackend",
]
