"""From what a client asks to a `Turn`: what both APIs have in common.

The system message carries effort, date and our tools; the developer message the instructions, the
client's functions and the response format; the rest is the conversation.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gptoss_harmony import (
    Engine,
    Message,
    ResponseFormat,
    Sampling,
    Tool,
    developer_message,
    system_message,
)
from gptoss_harmony.errors import UsageError
from gptoss_harmony.grammar import AnswerFormat, JsonSchema
from gptoss_harmony.render import RenderStyle
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.functions import ClientFunctions
from gptoss_serve.turn import Budget, Turn, Wishes

Effort = Literal["low", "medium", "high"]

EFFORTS: Mapping[str, Effort] = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
# What the model is told for each `verbosity`; medium is how it writes anyway.
VERBOSITY: Mapping[str, str] = {
    "low": "Keep the final answer short: what was asked for and no more.",
    "high": "Make the final answer thorough: give details, reasons and examples.",
}
# Recipients of our tools that a constrained answer may still call.
_RECIPIENTS = {"browser": ("browser.search", "browser.open", "browser.find"), "python": ("python",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a client asks for, in no API's words.

    Attributes:
        conversation: user, assistant and tool messages.
        instructions: texts of the developer message.
        effort: how long to think, in any client's word.
        functions: of the client, in force.
        choice: `auto`, `none`, `required` or a callable name.
        required_from: where the choice is `required`, the functions of which one must be called;
            () means any.
        tools: ours, in force.
        pending: calls at the end of the conversation that must run first.
        prefill: a header that is written for the model.
        response_schema: that the final answer must obey, or None.
        response_format: the same for the model's eyes.
        sampling: how to sample.
        budget: what else the answer may cost.
        drop_oldest: shorten a conversation that does not fit.
        wishes: what the client set itself.
    """

    conversation: Sequence[Message]
    instructions: Sequence[str] = ()
    effort: str | None = None
    functions: ClientFunctions = field(default_factory=ClientFunctions)
    choice: str = "auto"
    required_from: Collection[str] = ()
    tools: Sequence[Tool] = ()
    pending: Sequence[Message] = ()
    prefill: str = ""
    response_schema: Mapping[str, Any] | None = None
    response_format: ResponseFormat | None = None
    sampling: Sampling = field(default_factory=Sampling)
    budget: Budget = field(default_factory=Budget)
    drop_oldest: bool = False
    wishes: Wishes = field(default_factory=Wishes)


def make_turn(ask: Ask, engine: Engine) -> Turn:
    """Put the prompt together.

    Raises:
        InvalidRequest: something must be enforced and the engine cannot.
    """
    listed = [tool for tool in ask.tools if tool.name not in ask.functions]
    builtin_functions = [tool for tool in listed if tool.tool_config.name == "functions"]
    builtin = [tool for tool in listed if tool not in builtin_functions]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    messages = [system_message(effort=EFFORTS[ask.effort or "medium"], date=today, tools=builtin)]
    texts = [*ask.instructions, *(tool.instruction() for tool in ask.tools)]
    described = [
        *ask.functions.descriptions(),
        *(f for tool in builtin_functions for f in tool.tool_config.tools),
    ]
    instructions = "\n\n".join(text for text in texts if text)
    if instructions or described or ask.response_format:
        messages.append(
            developer_message(
                instructions or None, functions=described, response_format=ask.response_format
            )
        )
    return Turn(
        messages=[*messages, *ask.conversation],
        sampling=ask.sampling,
        tools=ask.tools,
        functions=ask.functions.of_client,
        format=_answer_format(ask, engine, choice="none" if ask.choice == "none" else "auto"),
        forced=_forced_format(ask, engine),
        pending=ask.pending,
        budget=ask.budget,
        style=RenderStyle(schemas="complete"),
        drop_oldest=ask.drop_oldest,
        prefill=ask.prefill,
        wishes=ask.wishes,
    )


def can_constrain(engine: Engine) -> bool:
    """Whether the engine enforces grammars."""
    return "constraint" in engine.spec.supports


def _forced_format(ask: Ask, engine: Engine) -> AnswerFormat | None:
    """What holds until a tool was called, where one must be."""
    if ask.choice in ("auto", "none"):
        return None
    if not ask.required_from:
        return _answer_format(ask, engine, choice=ask.choice)
    if not can_constrain(engine):
        _refuse(ask, engine, must_call=True)
    sources = ask.functions.sources()
    wanted = {name: sources[name] for name in ask.required_from}
    return AnswerFormat(functions=wanted, tool_choice="required")


def _answer_format(ask: Ask, engine: Engine, *, choice: str) -> AnswerFormat | None:
    must_call = choice not in ("auto", "none")
    wished = any(function.wants_constraint for function in ask.functions)
    if not (must_call or wished or ask.response_schema is not None):
        return None
    if not can_constrain(engine):
        _refuse(ask, engine, must_call=must_call)
        return None
    channels = {}
    if ask.response_schema is not None:
        channels = {"final": JsonSchema(ask.response_schema)}
    own = [tool.name for tool in ask.tools if tool.name not in ask.functions]
    return AnswerFormat(
        channels=channels,
        functions=ask.functions.sources(),
        builtin_tools=[r for name in own for r in _RECIPIENTS.get(name, (name,))],
        tool_choice=choice,
        # Clients read every text of a structured answer as data.
        preamble=ask.response_schema is None,
    )


def _refuse(ask: Ask, engine: Engine, *, must_call: bool) -> None:
    """Name what cannot be enforced; strict tools are only reported as not strict."""
    param = "tool_choice" if must_call else "text.format"
    if must_call or ask.response_schema is not None:
        raise InvalidRequest(
            f"the engine {engine.spec.name} cannot hold answers to a grammar, which {param} asks "
            "for; use another engine (torch, triton, vllm), or leave it out",
            param=param,
            code="unsupported",
        )


def checked_sampling(**values: Any) -> Sampling:
    """Sampling from a client's numbers, None meaning the default.

    Raises:
        InvalidRequest: a number out of range; it is named.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if given.get("top_p") == 0:
        given["top_p"] = 1e-6  # clients write 0 for "the likeliest only"
    try:
        return Sampling(**given)
    except UsageError as error:
        raise InvalidRequest(str(error), param=str(error).partition(" ")[0]) from error
