"""What an answer must look like: which text obeys which grammar, and what has to be called.

```
AnswerFormat(channels={"final": JsonSchema({"type": "object"})})
AnswerFormat(functions={"weather": JsonSchema(parameters)}, tool_choice="required")
```

`lark_text` writes it down as a grammar of the whole answer, markers included, so that reasoning
stays free, the final text obeys and no message can end before it is complete:

```
start: intro* ending
intro: (thought | preamble) <|end|> <|start|> "assistant"
thought: <|channel|> "analysis" <|message|> TEXT
ending: <|channel|> "final" <|message|> @final <|return|>
```
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gptoss_harmony import tokens as special
from gptoss_harmony.enforceable import enforceable
from gptoss_harmony.errors import GrammarError
from gptoss_harmony.header import CHANNELS

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_QUOTED: Final = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|//[^\n]*')
_MARKER: Final = re.compile(r"<\[|<\|")


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """Text that is JSON and valid under a schema; `{"type": "object"}` for any object."""

    schema: Mapping[str, Any]

    def compiled(self, name: str) -> dict[str, Any]:
        """Return it as llguidance reads it."""
        try:
            schema = json.loads(json.dumps(self.schema, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise GrammarError(f"it is not JSON: {error}") from error
        if not isinstance(schema, dict):
            raise GrammarError(f"it must be an object, not {schema!r}")
        return {"name": name, "json_schema": enforceable(schema)}


@dataclass(frozen=True, slots=True)
class Lark:
    """Text that a Lark grammar produces from its rule `start`."""

    text: str

    def compiled(self, name: str) -> dict[str, Any]:
        """Return it as llguidance reads it."""
        if _MARKER.search(_QUOTED.sub("", self.text)):
            raise GrammarError(
                "it names a special token; a grammar describes the text "
                "of one message, and its end is added here"
            )
        return {"name": name, "lark_grammar": self.text}


@dataclass(frozen=True, slots=True)
class Regex:
    """Text that a regular expression matches as a whole (Rust's syntax: no look-around)."""

    pattern: str

    def compiled(self, name: str) -> dict[str, Any]:
        """Return it as llguidance reads it."""
        escaped = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", self.pattern).replace("\n", r"\n")
        return {"name": name, "lark_grammar": f"start: /{escaped}/"}


Source = JsonSchema | Lark | Regex


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFormat:
    """The shape of an answer from after `<|start|>assistant` to its last token.

    Attributes:
        channels: what the text of a channel obeys; channels not named are free.
        functions: what the arguments obey, by function name without `functions.`.
        builtin_tools: recipients that may be called with free text: `python`, `browser.open`.
        tool_choice: `auto` ends with a final message or a call; `required` with a call; `none`
            with a final message; the name of a function with its call.
        analysis: whether the model may think first.
        preamble: whether the model may speak to the user before the end, on commentary.
        prefilled: what the prompt's header already says: a channel, or the recipient of a call;
            then the answer starts right after its `<|message|>`.
    """

    channels: Mapping[str, Source] = field(default_factory=dict)
    functions: Mapping[str, Source] = field(default_factory=dict)
    builtin_tools: Sequence[str] = ()
    tool_choice: str = "auto"
    analysis: bool = True
    preamble: bool = True
    prefilled: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no answer can satisfy, naming it."""
        for name in self.channels:
            if name not in CHANNELS:
                raise GrammarError(f"unknown channel {name!r}; choose one of {', '.join(CHANNELS)}")
        for name in (*self.functions, *self.builtin_tools):
            if not _NAME.fullmatch(name):
                raise GrammarError(f"{name!r} cannot be called: use letters, digits and _ . -")
        self._check_tool_choice()
        called = (self.prefilled or "").removeprefix("functions.")
        if self.prefilled not in (None, *CHANNELS) and called not in self.functions:
            raise GrammarError(f"prefilled names {self.prefilled!r}: no channel and no function")

    def _check_tool_choice(self) -> None:
        if self.tool_choice not in ("auto", "none", "required", *self.functions):
            raise GrammarError(f"tool_choice names {self.tool_choice!r}, which is no function here")
        if self.tool_choice == "required" and not (self.functions or self.builtin_tools):
            raise GrammarError("tool_choice is required, but there is no function to call")
        if self.prefilled == "final" and self.tool_choice not in ("auto", "none"):
            raise GrammarError("the prompt starts a final message, but a function must be called")

    def grammars(self) -> list[dict[str, Any]]:
        """Return the llguidance grammars, that of the whole answer first."""
        parts = [source.compiled(name) for name, source in self.channels.items()]
        parts += [
            source.compiled(f"f{index}") for index, source in enumerate(self.functions.values())
        ]
        return [{"lark_grammar": self.lark_text()}, *parts]

    def whole_lark(self) -> str:
        """Return one Lark text with the parts in it, for an engine that has llguidance itself."""
        first, *parts = self.grammars()
        text = re.sub(r"@(\w+)", r"part_\1", first["lark_grammar"])
        rules = [f"part_{part['name']}: {_inlined(part)}" for part in parts]
        return "\n".join([text, *rules])

    def lark_text(self) -> str:
        """Return the grammar of the whole answer; parts are referred to as `@name`."""
        rules = [
            f"start: {self._start()}",
            f'go_on: {_END} {_START} "assistant"',
            *([f"message: {self._intros()}"] if self.analysis or self.preamble else []),
            f"ending: {' | '.join(self._endings())}",
            f'format: " " {_CONSTRAIN} "json" | " json" | " code"',
            r"TEXT: /(.|\n)*/",
        ]
        return "\n".join(rules)

    def _body(self, channel: str) -> str:
        return f"@{channel}" if channel in self.channels else "TEXT"

    def _start(self) -> str:
        after = "(message go_on)* ending" if self.analysis or self.preamble else "ending"
        match self.prefilled:
            case None:
                return after
            case "final":
                return f"{self._body('final')} {_RETURN}"
            case "analysis" | "commentary" as channel:
                return f"{self._body(channel)} go_on {after}"
        index = list(self.functions).index(self.prefilled.removeprefix("functions."))
        return f"@f{index} {_CALL}"

    def _intros(self) -> str:
        preamble = f'{_CHANNEL} "commentary" {_MESSAGE} {self._body("commentary")}'
        thought = f'{_CHANNEL} "analysis" {_MESSAGE} {self._body("analysis")}'
        return " | ".join([thought] * self.analysis + [preamble] * self.preamble)

    def _endings(self) -> list[str]:
        endings = []
        if self.tool_choice in ("auto", "none"):
            kind = f'(" " {_CONSTRAIN} "json")? ' if "final" in self.channels else ""
            endings.append(f'{_CHANNEL} "final" {kind}{_MESSAGE} {self._body("final")} {_RETURN}')
        for index, name in enumerate(self.functions):
            if self.tool_choice in ("auto", "required", name):
                header = _call_header(f"functions.{name}", "commentary")
                endings.append(f"{header} format? {_MESSAGE} @f{index} {_CALL}")
        for name in self.builtin_tools if self.tool_choice in ("auto", "required") else ():
            header = _call_header(name, "analysis")
            endings.append(f"{header} format? {_MESSAGE} TEXT {_CALL}")
        return endings


def _inlined(part: Mapping[str, Any]) -> str:
    """A grammar as a term of another one."""
    if "json_schema" in part:
        return f"%json {json.dumps(part['json_schema'])}"
    return f"%lark {{\n{part['lark_grammar']}\n}}"


def _call_header(recipient: str, channel: str) -> str:
    """Both orders that harmony knows."""
    to, words = json.dumps(f" to={recipient}"), json.dumps(channel)
    return f"({to} {_CHANNEL} {words} | {_CHANNEL} {words} {to})"


_END: Final = f"<[{special.END}]>"
_START: Final = f"<[{special.START}]>"
_CHANNEL: Final = f"<[{special.CHANNEL}]>"
_MESSAGE: Final = f"<[{special.MESSAGE}]>"
_CONSTRAIN: Final = f"<[{special.CONSTRAIN}]>"
_RETURN: Final = f"<[{special.RETURN}]>"
_CALL: Final = f"<[{special.CALL}]>"
