"""Parts of a turn -> output items and their events: what all kinds share, messages and reasoning.

Each kind has `open()`, `grow(delta)`, `close(done)` and, for our tools, `answer(answered)`; all
return events without a sequence number. `item` is the item as it stands. Calls for the client are
in `call_parts`, calls of our tools in `tool_parts`; `new_item` in `item_kinds` chooses.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from gptoss_harmony import Encoding
from gptoss_serve.events import PartDelta, PartDone, ScoredToken, ToolAnswered
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

    @property
    def items(self) -> list[Json]:
        """What stands in the response's output once the part is over."""
        return [self.item]

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
        """`output_item.done`, with a status."""
        self.item["status"] = "completed" if complete else "incomplete"
        return self.finished()

    def finished(self) -> Json:
        """`output_item.done` with the item as it stands."""
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


def scored(encoding: Encoding, score: ScoredToken) -> Json:
    """A token with its log probability as OpenAI writes it."""

    def entry(token: int, logprob: float) -> Json:
        data = encoding.decode_bytes([token])
        return {"token": data.decode("utf-8", "replace"), "bytes": list(data), "logprob": logprob}

    alternatives = [entry(token, logprob) for token, logprob in score.top]
    return {**entry(score.token, score.logprob), "top_logprobs": alternatives}
