"""The shared format and contracts of gptoss.

```
from gptoss_harmony import Sampling, load_encoding, open_engine

engine = open_engine("auto", "nano")
```
"""

from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config import ModelConfig, gpt_oss_20b, gpt_oss_120b
from gptoss_harmony.conversation import (
    Author,
    ChannelConfig,
    Content,
    Conversation,
    DeveloperContent,
    Message,
    ReasoningEffort,
    RenderConversationConfig,
    ResponseFormat,
    Role,
    SystemContent,
    TextContent,
    ToolDescription,
    ToolNamespaceConfig,
    assistant_message,
    call_message,
    developer_message,
    function_tool,
    system_message,
    tool_message,
    user_message,
)
from gptoss_harmony.encoding import (
    Encoding,
    HarmonyEncodingName,
    load_encoding,
    load_harmony_encoding,
)
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
from gptoss_harmony.errors import HarmonyError, ParseError
from gptoss_harmony.events import Event, MessageDone, MessageStarted, Repaired, TextDelta
from gptoss_harmony.header import Header
from gptoss_harmony.parse import StreamParser
from gptoss_harmony.plugins import open_engine
from gptoss_harmony.render import RenderStyle
from gptoss_harmony.spans import Span
from gptoss_harmony.tool import Tool, ToolReply

__all__ = [
    "Author",
    "ChannelConfig",
    "Checkpoint",
    "Constraint",
    "Content",
    "Conversation",
    "DeveloperContent",
    "Encoding",
    "Engine",
    "EngineSpec",
    "EngineStats",
    "Event",
    "Generation",
    "HarmonyEncodingName",
    "HarmonyError",
    "Header",
    "Message",
    "MessageDone",
    "MessageStarted",
    "ModelConfig",
    "ParseError",
    "Prompt",
    "ReasoningEffort",
    "RenderConversationConfig",
    "RenderStyle",
    "Repaired",
    "ResponseFormat",
    "Role",
    "Sampling",
    "Span",
    "StreamParser",
    "SystemContent",
    "TextContent",
    "TextDelta",
    "TokenLogprob",
    "TokenOutput",
    "Tool",
    "ToolDescription",
    "ToolNamespaceConfig",
    "ToolReply",
    "assistant_message",
    "call_message",
    "developer_message",
    "function_tool",
    "gpt_oss_20b",
    "gpt_oss_120b",
    "load_encoding",
    "load_harmony_encoding",
    "open_engine",
    "system_message",
    "tool_message",
    "user_message",
]
