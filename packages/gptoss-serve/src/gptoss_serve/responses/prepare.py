"""A checked request -> what it takes to answer it: the turn, the writer's style, the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptoss_harmony import Engine, Message, ResponseFormat, Sampling, Tool
from gptoss_serve.asking import VERBOSITY, Ask, can_constrain, checked_sampling, make_turn
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.responses.listing import listed
from gptoss_serve.responses.schema import LOGPROBS, ResponsesRequest, TextFormat
from gptoss_serve.responses.store import Record
from gptoss_serve.responses.tools import ToolPlan
from gptoss_serve.responses.translate import Translation
from gptoss_serve.settings import ServerSettings
from gptoss_serve.toolbox import Toolbox
from gptoss_serve.turn import Budget, Turn
from gptoss_serve.wishes import response_wishes


@dataclass(slots=True, kw_only=True)
class Prepared:
    """A request that is ready to be answered.

    Attributes:
        request: the request.
        plan: its tools.
        conversation: user, assistant and tool messages, those of earlier responses first.
        developer: texts of the system and developer messages among the items, likewise.
        instructions: texts that hold for this response only.
        calls: recipient of each call by its id.
        input_items: as `input_items` shows them.
        tool_states: of our tools, from the response before.
        container_id: where code runs.
        approved: calls at the end of the conversation that a user approved.
        listings: tools of remote servers by label, as items told them.
        owner: whose the response will be; "" is everybody's.
    """

    request: ResponsesRequest
    plan: ToolPlan
    conversation: list[Message]
    developer: list[str]
    instructions: list[str]
    calls: dict[str, str]
    input_items: list[dict[str, Any]]
    tool_states: Mapping[str, Any] = field(default_factory=dict)
    container_id: str = "auto"
    approved: Sequence[Message] = ()
    listings: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    owner: str = ""

    def turn(self, engine: Engine, tools: Sequence[Tool], settings: ServerSettings) -> Turn:
        """The turn for the session.

        Raises:
            InvalidRequest: something that the engine cannot do.
        """
        request = self.request
        schema, shown = _response_format(request, engine)
        most = settings.max_tool_calls
        if request.max_tool_calls is not None:
            most = min(most, request.max_tool_calls)
        verbosity = VERBOSITY.get((request.text and request.text.verbosity) or "medium", "")
        ask = Ask(
            conversation=self.conversation,
            instructions=[*self.instructions, *self.developer, *self.plan.notes, verbosity],
            effort=request.reasoning.effort if request.reasoning else None,
            functions=self.plan.functions,
            choice=self.plan.choice,
            required_from=self.plan.required_from,
            tools=tools,
            pending=self.approved,
            prefill=self.plan.prefill,
            response_schema=schema,
            response_format=shown,
            sampling=_sampling(request, engine),
            budget=Budget(tool_calls=most, seconds=settings.max_seconds),
            drop_oldest=request.truncation == "auto",
            wishes=response_wishes(request),
        )
        turn = make_turn(ask, engine)
        style = turn.style
        if request.reasoning is not None and request.reasoning.context == "all_turns":
            style = style.replace(drop_analysis="never")
        one_call = request.parallel_tool_calls is False
        return dataclasses.replace(turn, style=style, one_call=one_call)


def prepare(
    request: ResponsesRequest,
    plan: ToolPlan,
    engine: Engine,
    previous: Record | None,
    *,
    toolbox: Toolbox,
    owner: str = "",
) -> Prepared:
    """Translate the input.

    Args:
        request: the request.
        plan: its tools.
        engine: what will answer.
        previous: the record that it goes on from.
        toolbox: the tools that run here.
        owner: whose the response will be, and whose containers may be used.

    Raises:
        InvalidRequest: an item that cannot be understood.
        NotFound: a container that is not there.
    """
    request.check()
    translation = Translation()
    if previous is not None:
        translation.messages = [Message.from_dict(m) for m in previous.messages]
        translation.instructions = list(previous.developer)
        translation.calls = dict(previous.calls)
    if request.input is not None:
        translation.add(request.input)
    if translation.approved and not plan.mcp:
        raise InvalidRequest(
            "a call was approved whose MCP server is not among the tools; send it again with them",
            param="tools",
        )
    plan.approvals = list(translation.approved)
    if not can_constrain(engine):
        _report_lax(plan)
    states = {} if previous is None else dict(previous.tool_states)
    container_id = _container(plan, toolbox, states, translation.containers, owner=owner)
    return Prepared(
        request=request,
        plan=plan,
        conversation=translation.conversation,
        developer=translation.instructions,
        instructions=_instructions(request.instructions),
        calls=translation.calls,
        input_items=listed(request.input),
        tool_states=states,
        container_id=container_id,
        approved=list(translation.approved.values()),
        listings=translation.listings,
        owner=owner,
    )


def _container(
    plan: ToolPlan, toolbox: Toolbox, states: dict[str, Any], told: Sequence[str], *, owner: str
) -> str:
    """Where the code of a response runs: where the client says, or where it ran before."""
    if "python" not in plan.builtin:
        return "auto"
    asked = plan.options["python"].get("container")
    before = states.get("python", {}).get("container")
    hints = [*([before] if before else []), *told]
    named = asked if isinstance(asked, str) else None
    container_id = toolbox.container(named, hints, owner=owner)
    states["python"] = {"container": container_id, "owner": owner}
    return container_id


def _instructions(given: str | list[dict[str, Any]] | None) -> list[str]:
    """The field `instructions`: a text, or system and developer messages."""
    if given is None or isinstance(given, str):
        return [given] if given else []
    translation = Translation()
    translation.add(given, where="instructions")
    if translation.messages:
        raise InvalidRequest(
            "instructions holds a text, or system and developer messages; "
            "everything else goes into input",
            param="instructions",
        )
    return translation.instructions


def _report_lax(plan: ToolPlan) -> None:
    """Say in the echoed tools what is not enforced."""
    for tool in plan.echo:
        for entry in (tool, *tool.get("tools", ())):
            if entry.get("strict"):
                entry["strict"] = False


def _response_format(
    request: ResponsesRequest, engine: Engine
) -> tuple[Mapping[str, Any] | None, ResponseFormat | None]:
    """The schema to enforce, and the one to show."""
    format: TextFormat | None = request.text.format if request.text else None
    if format is None or format.type == "text":
        return None, None
    if format.type == "json_object":
        return {"type": "object"}, None
    assert format.json_schema is not None
    assert format.name is not None
    shown = ResponseFormat(format.json_schema, format.name, format.description)
    is_wish = format.strict is False and not can_constrain(engine)
    return None if is_wish else format.json_schema, shown


def _sampling(request: ResponsesRequest, engine: Engine) -> Sampling:
    wants_logprobs = LOGPROBS in (request.include or ()) or bool(request.top_logprobs)
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
