"""Carries a planned step to the GPU, and its tokens back.

A step of answers alone is a graph replay; one with prompt chunks runs eagerly over all its rows.
Either way the drawn tokens stay in the slots for the next step, and a copy of them follows to the
host: `Flight.wait` is the only place where the host waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_triton.graphs import DecodeGraphs
from gptoss_triton.model import Batch, Model, Stream, prefill_tiles
from gptoss_triton.request import Request
from gptoss_triton.sample import draw
from gptoss_triton.scheduler import Step
from gptoss_triton.scoring import PromptScores, score_rows
from gptoss_triton.sequence import Sequence
from gptoss_triton.slots import Slots
from gptoss_triton.special import draw_special, masks_of

MOST_ALTERNATIVES = 20  # what `Sampling.logprobs` may ask for


@dataclass(frozen=True, slots=True)
class Drawn:
    """One token that came back: with its log probability and the likeliest alternatives."""

    request: Request
    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """A launched step.

    Attributes:
        rows: requests that draw, with the slot they had.
        event: recorded after the copies below; None without a GPU.
        tokens: (slots,) int32 on the host.
        logprobs: (slots,) float32 on the host.
        tops: row of the alternatives for each row that wants them.
        top_tokens: (wanting rows, 20) on the host.
        top_logprobs: the same.
        scores: of prompt tokens that this step has read, on the host.
    """

    rows: list[tuple[Request, int]]
    event: torch.cuda.Event | None
    tokens: Tensor
    logprobs: Tensor
    tops: Mapping[int, int]
    top_tokens: Tensor
    top_logprobs: Tensor
    scores: list[PromptScores]

    def wait(self) -> list[Drawn]:
        """Block until the tokens are here."""
        if self.event is not None:
            self.event.synchronize()
        drawn = []
        for row, (request, slot) in enumerate(self.rows):
            top: tuple[tuple[int, float], ...] = ()
            if row in self.tops:
                count = request.sampling.logprobs or 0
                line = self.tops[row]
                ids, values = self.top_tokens[line, :count], self.top_logprobs[line, :count]
                top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
            token, logprob = int(self.tokens[slot]), min(0.0, float(self.logprobs[slot]))
            drawn.append(Drawn(request, token, logprob, top))
        return drawn


class Runner:
    """Launches steps; call it from one thread.

    Args:
        model: the model.
        slots: tables and settings.
        graphs: whether answers run as CUDA graphs.
    """

    def __init__(self, model: Model, slots: Slots, *, graphs: bool) -> None:
        self.model, self.slots = model, slots
        self._graphs = DecodeGraphs(model, slots, enabled=graphs)

    def launch(self, step: Step, requests: Mapping[int, Request]) -> Flight:
        """Hand a step to the GPU, before the scheduler accounts for it.

        Args:
            step: what to compute.
            requests: by number of their sequence.

        Raises:
            ConstraintFailed: see `masks_of`; nothing was launched then, only the tables are set.
        """
        self.slots.set_pages(step.pages)
        self.slots.set_sampling(
            {
                sequence.slot: (requests[sequence.number].sampling, requests[sequence.number].seed)
                for sequence in step.admitted
            }
        )
        drawing = [*step.decode]
        drawing += [sequence for sequence, count in step.chunks if count == sequence.pending]
        masks = masks_of(
            [requests[sequence.number] for sequence in drawing], self.model.config.vocab_size
        )
        scores: list[PromptScores] = []
        if step.chunks:
            logits, positions, scores = self._mixed(step, drawing, requests)
        else:
            logits = self._graphs.step([(s.slot, s.launched) for s in step.decode])
            positions = self._graphs.positions
        rows = [(requests[sequence.number], sequence.slot) for sequence in drawing]
        special = [
            (row, request)
            for row, (request, _) in enumerate(rows)
            if request.waits or request.filtered
        ]
        if special:
            launch = self.model.tuning.launch("draw", len(special))
            draw_special(special, masks, logits, positions, self.slots, launch=launch)
        return self._return(rows, logits, scores)

    def close(self) -> None:
        """Forget the graphs, which hold memory."""
        self._graphs.close()

    def _mixed(
        self, step: Step, drawing: list[Sequence], requests: Mapping[int, Request]
    ) -> tuple[Tensor, Tensor, list[PromptScores]]:
        """Answers and chunks in one eager pass.

        Returns:
            Logits and positions of what draws, and scores of what was read, still on the device.
        """
        slots, batch = self.slots, self._batch(step)
        stream = self.model.stream(batch)
        logits = self.model.logits(stream, batch.last)
        scores = self._scores(step, stream, requests)
        assert batch.last is not None  # set by `_batch`
        positions = batch.positions[batch.last]
        if drawing:
            lines = slots.send(list(range(len(drawing))))
            where = slots.send([sequence.slot for sequence in drawing])
            launch = self.model.tuning.launch("draw", len(drawing))
            draw(logits, logits, lines, where, positions, slots.draw, launch=launch)
        return logits, positions, scores

    def _batch(self, step: Step) -> Batch:
        """The rows of a step: answers first, then the chunks one after another."""
        slots, rows = self.slots, len(step.decode)
        own, at = [s.slot for s in step.decode], [s.launched for s in step.decode]
        parts = [torch.tensor([own, own, at], dtype=torch.int32)]  # sources, sequences, positions
        read: list[int] = []
        last = list(range(rows))
        for sequence, count in step.chunks:
            offset = torch.arange(count, dtype=torch.int32)
            source = offset + (slots.count + 1 + len(read))
            slot = torch.full_like(offset, sequence.slot)
            parts.append(torch.stack([source, slot, offset + sequence.launched]))
            read += sequence.tokens[sequence.launched : sequence.launched + count]
            rows += count
            if count == sequence.pending:
                last.append(rows - 1)
        sources, sequences, positions = slots.there(torch.cat(parts, 1)).unbind(0)
        return Batch(
            tokens=torch.cat([slots.draw.token, slots.send(read)]),
            sources=sources,
            positions=positions,
            sequences=sequences,
            full_table=slots.full_table,
            window_table=slots.window_table,
            decode=len(step.decode),
            tiles=prefill_tiles(
                [(sequence.slot, count) for sequence, count in step.chunks],
                first=len(step.decode),
                tokens=self.model.tuning.launch("attention_prefill", rows).pairs,
                device=slots.device,
            ),
            last=slots.send(last or [0]).long(),
        )

    def _scores(
        self, step: Step, stream: Stream, requests: Mapping[int, Request]
    ) -> list[PromptScores]:
        """Score what the chunks read of prompts that are to be scored."""
        scores, row = [], len(step.decode)
        for sequence, count in step.chunks:
            request, first = requests[sequence.number], sequence.launched + 1
            tokens = sequence.tokens[first : min(first + count, sequence.prompt)]
            alternatives = request.sampling.prompt_logprobs
            if alternatives is not None and tokens:
                wanted = self.slots.send(tokens).long()
                found = score_rows(self.model, stream, row, wanted, top=alternatives)
                logprobs, ids, values = (self._here(tensor) for tensor in found)
                scores.append(
                    PromptScores(
                        request=request,
                        first=first,
                        tokens=tokens,
                        logprobs=logprobs,
                        top_tokens=ids,
                        top_logprobs=values,
                    )
                )
            row += count
        return scores

    def _return(
        self, rows: list[tuple[Request, int]], logits: Tensor, scores: list[PromptScores]
    ) -> Flight:
        """Start the copies to the host."""
        wanting = [row for row, (request, _) in enumerate(rows) if request.sampling.logprobs]
        values = logits.new_empty((0, MOST_ALTERNATIVES))
        ids = torch.empty_like(values, dtype=torch.int64)
        settings = self.slots.draw
        if wanting:
            chosen = logits[self.slots.send(wanting).long()]
            values, ids = chosen.topk(min(MOST_ALTERNATIVES, chosen.shape[1]))
            # The draw's own sums: PyTorch adds a row in another order when more rows are beside it.
            slots = self.slots.send([rows[row][1] for row in wanting]).long()
            values = values - settings.lse[slots, None]
        tensors = [self._here(tensor) for tensor in (settings.token, settings.logprob, ids, values)]
        event = None
        if self.slots.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        return Flight(
            rows=rows,
            event=event,
            tokens=tensors[0],
            logprobs=tensors[1],
            tops={row: line for line, row in enumerate(wanting)},
            top_tokens=tensors[2],
            top_logprobs=tensors[3],
            scores=scores,
        )

    def _here(self, tensor: Tensor) -> Tensor:
        """A copy on the host that is complete once the event has passed."""
        if tensor.device.type != "cuda":
            return tensor.clone()
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
            tensor, non_blocking=True
        )
