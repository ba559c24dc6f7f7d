"""A checked request -> what it takes to answer it: the turn, the writer's style, the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptoss_harmony import Engine, Message, ResponseFormat, Sampling, Tool
from gptoss_serve.asking import Ask, can_constrain, checked_sampling, make_turn
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.responses.parts import new_id
from gptoss_serve.responses.schema import ResponsesRequest, TextFormat
from gptoss_serve.responses.store import Record
from gptoss_serve.responses.tools import ToolPlan
from gptoss_serve.responses.translate import Translation
from gptoss_serve.settings import ServerSettings
from gptoss_serve.turn import Budget, Turn

_LOGPROBS = "message.output_text.logprobs"


@dataclass(slots=True, kw_only=True)
class Prepared:
    """A request that is ready to be answered.

    Attributes:
        request: the request.
        plan: its tools.
        conversation: user, assistant and tool messages, those of earlier responses first.
        instructions: texts of its system and developer messages.
        calls: recipient of each call by its id.
        input_items: as `input_items` shows them.
        tool_states: of our tools, from the response before.
    """

    request: ResponsesRequest
    plan: ToolPlan
    conversation: list[Message]
    instructions: list[str]
    calls: dict[str, str]
    input_items: list[dict[str, Any]]
    tool_states: Mapping[str, Any] = field(default_factory=dict)

    def turn(self, engine: Engine, tools: Sequence[Tool], settings: ServerSettings) -> Turn:
        """The turn for the session.

        Raises:
            InvalidRequest: something that the engine cannot do.
        """
        request = self.request
        schema, shown = _response_format(request)
        most = settings.max_tool_calls
        if request.max_tool_calls is not None:
            most = min(most, request.max_tool_calls)
        ask = Ask(
            conversation=self.conversation,
            instructions=self.instructions,
            effort=request.reasoning.effort if request.reasoning else None,
            functions=self.plan.functions,
            choice=self.plan.choice,
            tools=tools,
            prefill=self.plan.prefill,
            response_schema=schema,
            response_format=shown,
            sampling=_sampling(request, engine),
            budget=Budget(tool_calls=most, seconds=settings.max_seconds),
            drop_oldest=request.truncation == "auto",
        )
        return make_turn(ask, engine)


def prepare(
    request: ResponsesRequest, plan: ToolPlan, engine: Engine, previous: Record | None
) -> Prepared:
    """Translate the input.

    Raises:
        InvalidRequest: an item that cannot be understood.
    """
    request.refuse_unsupported()
    translation = Translation()
    if previous is not None:
        translation.messages = [Message.from_dict(m) for m in previous.messages]
        translation.calls = dict(previous.calls)
    if isinstance(request.instructions, str):
        translation.instructions.append(request.instructions)
    elif request.instructions is not None:
        translation.add(request.instructions, where="instructions")
    translation.add(request.input if request.input is not None else "")
    if not can_constrain(engine):
        _report_lax(plan)
    return Prepared(
        request=request,
        plan=plan,
        conversation=translation.messages,
        instructions=translation.instructions,
        calls=translation.calls,
        input_items=_shown(request.input),
        tool_states={} if previous is None else previous.tool_states,
    )


def _report_lax(plan: ToolPlan) -> None:
    """Say in the echoed tools what is not enforced."""
    for tool in plan.echo:
        for entry in (tool, *tool.get("tools", ())):
            if entry.get("strict"):
                entry["strict"] = False


def _response_format(
    request: ResponsesRequest,
) -> tuple[Mapping[str, Any] | None, ResponseFormat | None]:
    """The schema to enforce, and the one to show."""
    format: TextFormat | None = request.text.format if request.text else None
    if format is None or format.type == "text":
        return None, None
    if format.type == "json_object":
        return {"type": "object"}, None
    if format.json_schema is None or format.name is None:
        raise InvalidRequest(
            "a json_schema format needs a name and a schema", param="text.format.schema"
        )
    shown = ResponseFormat(format.json_schema, format.name, format.description)
    return format.json_schema, shown


def _sampling(request: ResponsesRequest, engine: Engine) -> Sampling:
    wants_logprobs = _LOGPROBS in (request.include or ()) or bool(request.top_logprobs)
    if wants_logprobs and "logprobs" not in engine.spec.supports:
        raise InvalidRequest(
            f"the engine {engine.spec.name} reports no log probabilities",
            param="top_logprobs" if request.top_logprobs else "include",
            code="unsupported",
        )
    return checked_sampling(
        max_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        seed=request.seed,
        logprobs=(request.top_logprobs or 0) if wants_logprobs else None,
    )


def _shown(given: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Input as items with ids."""
    if isinstance(given, list):
        return [{**item, "id": item.get("id") or new_id(_prefix(item))} for item in given]
    content = [{"type": "input_text", "text": given or ""}]
    message = {"type": "message", "role": "user", "status": "completed", "content": content}
    return [{"id": new_id("msg"), **message}]


def _prefix(item: Mapping[str, Any]) -> str:
    prefixes = {"reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}
    return prefixes.get(str(item.get("type")), "msg")
