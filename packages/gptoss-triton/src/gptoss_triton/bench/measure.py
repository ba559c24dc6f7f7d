"""The measurements of `gptoss bench --engine triton`: decode, prefill and a mix of requests."""

from __future__ import annotations

import random
import time

import torch

from gptoss_harmony.engine import Sampling
from gptoss_triton.bench.ceilings import (
    Rates,
    decode_ceiling,
    distinct_experts,
    elapsed,
    prefill_ceiling,
)
from gptoss_triton.bench.row import Row
from gptoss_triton.build import Machine
from gptoss_triton.cache import PAGE_SIZE
from gptoss_triton.engine import TritonEngine
from gptoss_triton.graphs import DecodeGraphs
from gptoss_triton.model import Batch, pages_for, prefill_tiles
from gptoss_triton.slots import Slots


class Bench:
    """Drives a machine by hand, without its scheduler.

    Args:
        machine: built from weights or a checkpoint.
        rates: of the card.
    """

    def __init__(self, machine: Machine, rates: Rates) -> None:
        self.machine, self.rates, self.config = machine, rates, machine.config
        self.model = machine.runner.model
        memory = machine.memory
        self.slots = Slots(
            memory.max_batch,
            context=memory.context,
            vocabulary=self.config.vocab_size,
            device=machine.device,
        )
        self.graphs = DecodeGraphs(self.model, self.slots)
        # Whatever lies in fresh memory may be NaN; then all tokens choose the same experts.
        self.model.cache.full.normal_()
        self.model.cache.windowed.normal_()

    def _pages(self, sequences: int, tokens: int) -> bool:
        """Give each sequence pages of its own; False if the pools are too small."""
        blocks, memory = pages_for(tokens), self.machine.memory
        if sequences * blocks > memory.full_pages or blocks > self.slots.full_table.shape[1]:
            return False
        pages = torch.arange(sequences * blocks, dtype=torch.int32, device=self.machine.device)
        self.slots.full_table[:sequences, :blocks] = pages.view(sequences, blocks)
        self.slots.window_table[:sequences, :blocks] = pages.view(sequences, blocks).remainder(
            memory.window_pages
        )
        return True

    def decode(self, batch: int, context: int) -> Row | None:
        """Steps of `batch` sequences at one length; None if they do not fit."""
        if batch > self.slots.count or not self._pages(batch, context + 1):
            return None
        self.slots.draw.token.random_(0, self.config.vocab_size)
        self.slots.draw.temperature.fill_(1.0)
        rows = [(slot, context) for slot in range(batch)]
        distinct = self._distinct(rows)
        seconds = elapsed(lambda: self.graphs.step(rows), 20)
        return Row(
            what="decode",
            batch=batch,
            context=context,
            rate=batch / seconds,
            ceiling=decode_ceiling(self.config, self.rates, batch, context, distinct=distinct),
            note=f"{seconds * 1e6:.0f} us a step, {distinct:.1f} experts a layer used "
            f"({distinct_experts(self.config, batch):.1f} if uniform)",
        )

    def _distinct(self, rows: list[tuple[int, int]]) -> float:
        """Experts of a layer that a step uses, averaged over the layers."""
        self.model.trace = []
        try:
            DecodeGraphs(self.model, self.slots, enabled=False).step(rows)
            used = [len(set(chosen.tolist())) for chosen in self.model.trace]
        finally:
            self.model.trace = None
        return sum(used) / len(used)

    def prefill(self, tokens: int) -> Row | None:
        """Read one prompt in steps of the planned size; None if it does not fit."""
        if not self._pages(1, tokens):
            return None
        device = self.machine.device
        prompt = torch.randint(
            0, self.config.vocab_size, (tokens,), dtype=torch.int32, device=device
        )
        step = self.machine.memory.step_tokens

        def read() -> None:
            for start in range(0, tokens, step):
                self._chunk(prompt[start : start + step], start)

        seconds = elapsed(read, 1)
        return Row(
            what="prefill",
            batch=1,
            context=tokens,
            rate=tokens / seconds,
            ceiling=prefill_ceiling(self.config, self.rates, tokens),
            note=f"first token after {seconds * 1e3:.1f} ms",
        )

    def _chunk(self, tokens: torch.Tensor, start: int) -> None:
        """One chunk of slot 0's prompt."""
        count, device = tokens.numel(), self.machine.device
        size = self.model.tuning.launch("attention_prefill", count).pairs
        rows = torch.arange(count, dtype=torch.int32, device=device)
        self.model.forward(
            Batch(
                tokens=tokens,
                sources=rows,
                positions=rows + start,
                sequences=torch.zeros_like(rows),
                full_table=self.slots.full_table,
                window_table=self.slots.window_table,
                decode=0,
                tiles=prefill_tiles([(0, count)], first=0, tokens=size, device=device),
                last=torch.tensor([count - 1], device=device),
            )
        )


def mix(engine: TritonEngine, requests: int, *, seed: int) -> Row:
    """Many requests at once: 256 to 1,024 tokens in, 128 to 384 out, through the whole engine.

    Args:
        engine: to ask.
        requests: how many.
        seed: of lengths and tokens.
    """
    source = random.Random(seed)
    vocabulary, prompts, answers = min(199_000, engine.spec.vocabulary_size), [], []
    for _ in range(requests):
        length = source.randrange(256, 1025)
        prompts.append([source.randrange(vocabulary) for _ in range(length)])
        answers.append(source.randrange(128, 385))
    start = time.perf_counter()
    running = [
        engine.generate(
            prompt, Sampling(temperature=1.0, seed=seed + i, max_tokens=answer, stop_tokens=())
        )
        for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]
    produced = sum(output.token is not None for generation in running for output in generation)
    seconds = time.perf_counter() - start
    return Row(
        what="mix",
        batch=requests,
        context=sum(map(len, prompts)),
        rate=produced / seconds,
        note=f"{produced} tokens out in {seconds:.2f} s, {PAGE_SIZE}-token pages",
    )
