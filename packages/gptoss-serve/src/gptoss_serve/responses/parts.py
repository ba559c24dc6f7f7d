"""Parts of a turn -> output items and their events, one class per kind of item.

Each has `open()`, `grow(delta)`, `close(done)` and, for our tools, `answer(answered)`; all return
events without a sequence number. `item` is the item as it stands.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from gptoss_harmony import Encoding
from gptoss_serve.events import PartDelta, PartDone, ScoredToken, ToolAnswered
from gptoss_serve.functions import ClientFunction
from gptoss_serve.responses.translate import seal

Json = dict[str, Any]
ReasoningMode = Literal["text", "summary", "spec"]


def new_id(prefix: str) -> str:
    """A fresh id such as `msg_3f2a...`."""
    return f"{prefix}_{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemStyle:
    """What the request and the server say about items.

    Attributes:
        encoding: turns scored tokens into text.
        reasoning: how thoughts are named: `text`, `summary` or `spec`.
        summary: also put a summary beside the text.
        include: the request's `include`.
        container_id: of the python session.
    """

    encoding: Encoding
    reasoning: ReasoningMode = "text"
    summary: bool = False
    include: Collection[str] = ()
    container_id: str = "auto"


class Item:
    """What all kinds share: an item with an index and an id that never change."""

    def __init__(self, index: int, item: Json) -> None:
        self.index = index
        self.item = item

    def event(self, kind: str, **fields: Any) -> Json:
        """An event about this item."""
        return {
            "type": f"response.{kind}",
            "item_id": self.item["id"],
            "output_index": self.index,
            **fields,
        }

    def added(self) -> Json:
        """`output_item.added` with the item as it stands."""
        item = json.loads(json.dumps(self.item))
        return {"type": "response.output_item.added", "output_index": self.index, "item": item}

    def done(self, *, complete: bool) -> Json:
        """`output_item.done`."""
        self.item["status"] = "completed" if complete else "incomplete"
        return {"type": "response.output_item.done", "output_index": self.index, "item": self.item}

    def open(self) -> list[Json]:
        """The item begins."""
        return [self.added()]

    def grow(self, delta: PartDelta) -> list[Json]:
        """More text."""
        raise NotImplementedError

    def close(self, done: PartDone) -> list[Json]:
        """The text is whole."""
        raise NotImplementedError

    def answer(self, answered: ToolAnswered) -> list[Json]:
        """Our tool has answered; only its own items care."""
        return []


class MessageItem(Item):
    """A final answer or a preamble."""

    def __init__(self, index: int, style: ItemStyle, *, phase: str) -> None:
        item = {"id": new_id("msg"), "type": "message", "status": "in_progress"}
        super().__init__(index, {**item, "role": "assistant", "content": [], "phase": phase})
        self._style = style
        self._annotations: list[Json] = []
        self._logprobs: list[Json] = []

    def open(self) -> list[Json]:
        """Item and text part."""
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [self.added(), self.event("content_part.added", content_index=0, part=part)]

    def grow(self, delta: PartDelta) -> list[Json]:
        """A delta, and an annotation for each citation in it."""
        scores = [scored(self._style.encoding, score) for score in delta.logprobs]
        self._logprobs += scores
        events = [
            self.event("output_text.delta", content_index=0, delta=delta.text, logprobs=scores)
        ]
        for citation in delta.citations:
            note = {
                "type": "url_citation",
                "start_index": citation.start,
                "end_index": citation.end,
                "title": citation.title,
                "url": citation.url,
            }
            events.append(
                self.event(
                    "output_text.annotation.added",
                    content_index=0,
                    annotation_index=len(self._annotations),
                    annotation=note,
                )
            )
            self._annotations.append(note)
        return events

    def close(self, done: PartDone) -> list[Json]:
        """Text, part and item are done."""
        part = {
            "type": "output_text",
            "text": done.text,
            "annotations": self._annotations,
            "logprobs": self._logprobs,
        }
        self.item["content"] = [part]
        logprobs = self._logprobs
        return [
            self.event("output_text.done", content_index=0, text=done.text, logprobs=logprobs),
            self.event("content_part.done", content_index=0, part=part),
            self.done(complete=done.complete),
        ]


class ReasoningItem(Item):
    """Analysis, under the names of one of three conventions."""

    def __init__(self, index: int, style: ItemStyle) -> None:
        super().__init__(index, {"id": new_id("rs"), "type": "reasoning", "summary": []})
        self.item["status"] = "in_progress"
        self._style = style
        if style.reasoning != "summary":
            self.item["content"] = []
        self._word = "reasoning_text" if style.reasoning == "text" else "reasoning"

    def open(self) -> list[Json]:
        """Item and part."""
        if self._style.reasoning == "summary":
            return [self.added(), self._summary_part("added", "")]
        part = {"type": "reasoning_text", "text": ""}
        return [self.added(), self.event("content_part.added", content_index=0, part=part)]

    def grow(self, delta: PartDelta) -> list[Json]:
        """A delta."""
        if self._style.reasoning == "summary":
            return [self.event("reasoning_summary_text.delta", summary_index=0, delta=delta.text)]
        return [self.event(f"{self._word}.delta", content_index=0, delta=delta.text)]

    def close(self, done: PartDone) -> list[Json]:
        """Text, part, the copy for whoever asked for a summary, and item."""
        if self._style.reasoning == "summary":
            events = self._summary_end(done.text)
        else:
            part = {"type": "reasoning_text", "text": done.text}
            self.item["content"] = [part]
            events = [
                self.event(f"{self._word}.done", content_index=0, text=done.text),
                self.event("content_part.done", content_index=0, part=part),
            ]
            if self._style.summary and done.text:
                events.append(self._summary_part("added", ""))
                events.append(
                    self.event("reasoning_summary_text.delta", summary_index=0, delta=done.text)
                )
                events += self._summary_end(done.text)
        if "reasoning.encrypted_content" in self._style.include:
            self.item["encrypted_content"] = seal(done.text)
        return [*events, self.done(complete=done.complete)]

    def _summary_part(self, what: str, text: str) -> Json:
        part = {"type": "summary_text", "text": text}
        return self.event(f"reasoning_summary_part.{what}", summary_index=0, part=part)

    def _summary_end(self, text: str) -> list[Json]:
        self.item["summary"] = [{"type": "summary_text", "text": text}]
        return [
            self.event("reasoning_summary_text.done", summary_index=0, text=text),
            self._summary_part("done", text),
        ]


class FunctionCallItem(Item):
    """A call of the client's function."""

    def __init__(self, index: int, function: ClientFunction) -> None:
        super().__init__(index, _call_item("function_call", "fc", function, arguments=""))

    def grow(self, delta: PartDelta) -> list[Json]:
        """More arguments."""
        return [self.event("function_call_arguments.delta", delta=delta.text)]

    def close(self, done: PartDone) -> list[Json]:
        """Arguments and item are done."""
        self.item["arguments"] = done.text
        name = self.item["name"]
        return [
            self.event("function_call_arguments.done", arguments=done.text, name=name),
            self.done(complete=done.complete),
        ]


class CustomCallItem(Item):
    """A call of the client's freeform tool; its text may come wrapped in JSON."""

    def __init__(self, index: int, function: ClientFunction) -> None:
        super().__init__(index, _call_item("custom_tool_call", "ctc", function, input=""))
        self._held = ""
        self._is_plain = False

    def grow(self, delta: PartDelta) -> list[Json]:
        """More input; held back while it may be JSON around the text."""
        if self._is_plain:
            return [self.event("custom_tool_call_input.delta", delta=delta.text)]
        self._held += delta.text
        if not self._held.strip() or self._held.lstrip()[0] in '{"':
            return []
        self._is_plain = True
        return [self.event("custom_tool_call_input.delta", delta=self._held)]

    def close(self, done: PartDone) -> list[Json]:
        """Input and item are done."""
        text = done.text if self._is_plain else unwrapped(done.text)
        self.item["input"] = text
        late = not self._is_plain and bool(text)
        events = [self.event("custom_tool_call_input.delta", delta=text)] if late else []
        return [
            *events,
            self.event("custom_tool_call_input.done", input=text),
            self.done(complete=done.complete),
        ]


class WebSearchItem(Item):
    """A call of our browser: known, and shown, once its arguments are whole."""

    def __init__(self, index: int, name: str) -> None:
        item = {"id": new_id("ws"), "type": "web_search_call", "status": "in_progress"}
        super().__init__(index, item)
        self._name = name

    def open(self) -> list[Json]:
        """Nothing yet: an item must say what it searches for."""
        return []

    def grow(self, delta: PartDelta) -> list[Json]:
        """Nothing: there is no event for half a query."""
        return []

    def close(self, done: PartDone) -> list[Json]:
        """Begin; or begin and fail, where the call was cut short."""
        self.item["action"] = browser_action(self._name, done.text)
        events = [self.added(), self.event("web_search_call.in_progress")]
        if done.complete:
            self.item["status"] = "searching"
            return [*events, self.event("web_search_call.searching")]
        return [*events, self._end("failed")]

    def answer(self, answered: ToolAnswered) -> list[Json]:
        """The page is there."""
        if answered.failed:
            return [self._end("failed")]
        return [self.event("web_search_call.completed"), self._end("completed")]

    def _end(self, status: str) -> Json:
        self.item["status"] = status
        return {"type": "response.output_item.done", "output_index": self.index, "item": self.item}


class CodeItem(Item):
    """A call of our python."""

    def __init__(self, index: int, style: ItemStyle) -> None:
        item = {"id": new_id("ci"), "type": "code_interpreter_call", "status": "in_progress"}
        more = {"code": "", "container_id": style.container_id, "outputs": None}
        super().__init__(index, {**item, **more})
        self._with_outputs = "code_interpreter_call.outputs" in style.include

    def open(self) -> list[Json]:
        """Item and state."""
        return [self.added(), self.event("code_interpreter_call.in_progress")]

    def grow(self, delta: PartDelta) -> list[Json]:
        """More code."""
        return [self.event("code_interpreter_call_code.delta", delta=delta.text)]

    def close(self, done: PartDone) -> list[Json]:
        """The code is whole and runs; or it was cut short."""
        self.item["code"] = done.text
        events = [self.event("code_interpreter_call_code.done", code=done.text)]
        if done.complete:
            self.item["status"] = "interpreting"
            return [*events, self.event("code_interpreter_call.interpreting")]
        return [*events, self.done(complete=False)]

    def answer(self, answered: ToolAnswered) -> list[Json]:
        """The output is there."""
        if self._with_outputs:
            self.item["outputs"] = [{"type": "logs", "logs": answered.text}]
        return [self.event("code_interpreter_call.completed"), self.done(complete=True)]


def _call_item(kind: str, prefix: str, function: ClientFunction, **text: str) -> Json:
    item: Json = {"id": new_id(prefix), "type": kind, "status": "in_progress"}
    item |= {"call_id": new_id("call"), "name": function.name, **text}
    if function.namespace is not None:
        item["namespace"] = function.namespace
    return item


def scored(encoding: Encoding, score: ScoredToken) -> Json:
    """A token with its log probability as OpenAI writes it."""

    def entry(token: int, logprob: float) -> Json:
        data = encoding.decode_bytes([token])
        return {"token": data.decode("utf-8", "replace"), "bytes": list(data), "logprob": logprob}

    alternatives = [entry(token, logprob) for token, logprob in score.top]
    return {**entry(score.token, score.logprob), "top_logprobs": alternatives}


def unwrapped(text: str) -> str:
    """The text of a freeform call that came as a JSON string or as `{"input": text}`."""
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        return text
    if isinstance(value, dict) and set(value) == {"input"}:
        value = value["input"]
    return value if isinstance(value, str) else text


def browser_action(name: str, arguments: str) -> Json:
    """What a browser call does, as the Responses API writes it; unreadable arguments are kept."""
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        given = {"query": arguments}
    pattern, query = str(given.get("pattern") or ""), str(given.get("query") or "")
    match name.partition(".")[2]:
        case "open":
            target = given.get("id")
            return {"type": "open_page", "url": target if isinstance(target, str) else None}
        case "find":
            return {"type": "find_in_page", "pattern": pattern, "url": ""}
    return {"type": "search", "query": query, "queries": [query]}
