"""Chat Completions without HTTP: a checked request in, chunks or a completion out."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from gptoss_harmony import Message, Sampling
from gptoss_harmony.errors import GrammarError
from gptoss_serve.asking import VERBOSITY, Ask, checked_sampling, make_turn
from gptoss_serve.completions.chat import ChatChoice, envelope, usage_object
from gptoss_serve.completions.messages import (
    plan_chat_tools,
    response_format,
    translate_messages,
)
from gptoss_serve.completions.schema import ChatRequest
from gptoss_serve.errors import InvalidRequest, refused_grammar
from gptoss_serve.events import Usage
from gptoss_serve.limits import Admission
from gptoss_serve.models import ModelNames
from gptoss_serve.responses.tools import ToolPlan
from gptoss_serve.session import Session
from gptoss_serve.settings import ServerSettings
from gptoss_serve.toolbox import Toolbox
from gptoss_serve.turn import Budget
from gptoss_serve.wishes import chat_wishes

Json = dict[str, Any]


@dataclasses.dataclass(slots=True, kw_only=True)
class ChatAsk:
    """A request that is ready to be answered.

    Attributes:
        request: the request.
        model: the name to echo.
        plan: its tools.
        conversation: user, assistant and tool messages.
        instructions: texts of its system and developer messages.
        client: who asks, for a fair turn.
        completion_id: of the completion.
    """

    request: ChatRequest
    model: str
    plan: ToolPlan
    conversation: list[Message]
    instructions: list[str]
    client: str = ""
    completion_id: str = dataclasses.field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")


class ChatService:
    """Answers requests of Chat Completions; the arguments are those of `ResponseService`."""

    def __init__(
        self,
        session: Session,
        *,
        toolbox: Toolbox,
        models: ModelNames,
        admission: Admission,
        settings: ServerSettings,
    ) -> None:
        self._session = session
        self._toolbox = toolbox
        self._models = models
        self._admission = admission
        self._settings = settings

    def prepare(self, request: ChatRequest, *, client: str = "") -> ChatAsk:
        """Check what the schema cannot; `client` is who asks.

        Raises:
            ServeError: it cannot be served.
        """
        names = ("audio", "prediction", "web_search_options", "functions", "function_call")
        request.refuse("logit_bias", *names)
        if request.modalities not in (None, ["text"]):
            raise InvalidRequest("gpt-oss writes text only", param="modalities")
        if request.top_logprobs and not request.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
        translation = translate_messages(request.messages)
        choice = request.tool_choice
        return ChatAsk(
            request=request,
            model=self._models.resolve(request.model),
            plan=plan_chat_tools(request.tools or [], choice, self._toolbox),
            conversation=translation.messages,
            instructions=translation.instructions,
            client=client,
        )

    async def complete(self, ask: ChatAsk) -> Json:
        """The whole completion."""
        count = ask.request.n or 1
        choices = [self._choice(ask, index) for index in range(count)]

        async def run(choice: ChatChoice) -> None:
            async with aclosing(self._deltas(ask, choice)) as deltas:
                async for _ in deltas:
                    pass

        try:
            async with asyncio.TaskGroup() as group:
                for choice in choices:
                    group.create_task(run(choice))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        usage = usage_object(_sum(choices))
        wholes = [choice.whole() for choice in choices]
        return envelope("chat.completion", ask.completion_id, ask.model, wholes, usage=usage)

    async def stream(self, ask: ChatAsk) -> AsyncGenerator[list[Json], None]:
        """Chunks in batches; the choices of `n` come one after the other."""
        usage_field = {"usage": None} if ask.request.wants_usage else {}
        done: list[ChatChoice] = []
        for index in range(ask.request.n or 1):
            choice = self._choice(ask, index)
            async with aclosing(self._deltas(ask, choice)) as batches:
                async for batch in batches:
                    yield [self._chunk(ask, [delta], **usage_field) for delta in batch]
            done.append(choice)
        if ask.request.wants_usage:
            yield [self._chunk(ask, [], usage=usage_object(_sum(done)))]

    async def _deltas(self, ask: ChatAsk, choice: ChatChoice) -> AsyncGenerator[list[Json], None]:
        async with self._admission.slot(ask.client):
            tools = await self._toolbox.open(ask.plan.builtin, options=ask.plan.options)
            try:
                turn = make_turn(self._ask(ask, tools, choice.index), self._session.engine)
                one_call = ask.request.parallel_tool_calls is False
                turn = dataclasses.replace(turn, one_call=one_call)
                async with aclosing(self._session.respond(turn)) as events:
                    begun = False
                    async for event in events:
                        batch = [] if begun else [choice.first()]
                        begun = True
                        batch += choice.read(event)
                        if batch:
                            yield batch
                        if choice.stopped:
                            break
                yield [choice.last()]
            except GrammarError as error:
                raise refused_grammar(error, "response_format") from error
            finally:
                await self._toolbox.close(tools)

    def _choice(self, ask: ChatAsk, index: int) -> ChatChoice:
        request = ask.request
        hidden = request.include_reasoning is False or (
            request.reasoning is not None and request.reasoning.exclude
        )
        names = ["reasoning"]
        if self._settings.reasoning_content:
            names.append("reasoning_content")
        return ChatChoice(
            index,
            functions=ask.plan.functions,
            encoding=self._session.encoding,
            stops=request.stops,
            thoughts=[] if hidden else names,
        )

    def _ask(self, ask: ChatAsk, tools: Any, index: int) -> Ask:
        request = ask.request
        schema, shown = response_format(request.response_format)
        settings = self._settings
        effort = request.reasoning_effort
        if effort is None and request.reasoning is not None:
            effort = request.reasoning.wanted
        return Ask(
            conversation=ask.conversation,
            instructions=[*ask.instructions, VERBOSITY.get(request.verbosity or "medium", "")],
            effort=effort,
            functions=ask.plan.functions,
            choice=ask.plan.choice,
            tools=tools,
            prefill=ask.plan.prefill,
            response_schema=schema,
            response_format=shown,
            sampling=self._sampling(request, index),
            budget=Budget(tool_calls=settings.max_tool_calls, seconds=settings.max_seconds),
            wishes=chat_wishes(request),
        )

    def _sampling(self, request: ChatRequest, index: int) -> Sampling:
        if request.logprobs and "logprobs" not in self._session.engine.spec.supports:
            name = self._session.engine.spec.name
            raise InvalidRequest(
                f"the engine {name} reports no log probabilities",
                param="logprobs",
                code="unsupported",
            )
        return checked_sampling(
            max_tokens=request.max_completion_tokens or request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            # The answers of one request differ, and are the same every time.
            seed=None if request.seed is None else request.seed + index,
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        )

    def _chunk(self, ask: ChatAsk, choices: list[Json], **more: Any) -> Json:
        return envelope("chat.completion.chunk", ask.completion_id, ask.model, choices, **more)


def _sum(choices: list[ChatChoice]) -> Usage:
    """Tokens of all choices; the prompt they share counts once."""
    total = Usage()
    for choice in choices:
        total += choice.usage
    first = choices[0].usage
    return dataclasses.replace(
        total, input_tokens=first.input_tokens, cached_tokens=first.cached_tokens
    )
