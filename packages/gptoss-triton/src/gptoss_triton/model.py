"""The forward pass on one GPU: a batch of new tokens in, logits of the asked-for rows out.

    x = embedding[token]
    per layer:  x = x + attention(norm(x));  x = x + experts(norm(x))
    logits = unembedding(norm(x))

A batch is first the newest token of every answering sequence, one row each, then whole chunks of
prompts. Each kernel's tile sizes come from the tuning table by the number of rows; the same code
runs eagerly and while a CUDA graph is captured.

Dimensions: T tokens, B of them decode rows, Q = T K pairs, N model width, H query heads, G kv
heads, D head dim, K experts per token, E experts, V vocabulary rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_core.rope import rope_tables
from gptoss_triton.attention_decode import SplitScratch, attention_decode
from gptoss_triton.attention_prefill import attention_prefill
from gptoss_triton.cache import PAGE_SIZE, PagedCache
from gptoss_triton.experts import SplitSums, experts_direct, experts_grouped
from gptoss_triton.linear import linear, linear_many
from gptoss_triton.norm import embed, residual_norm
from gptoss_triton.plan import Plan, make_plan
from gptoss_triton.rope_cache import rope_cache
from gptoss_triton.router import LARGEST_HALF, router_few, router_many
from gptoss_triton.tuning import Tuning
from gptoss_triton.weights import LayerWeights, ModelWeights

INT32 = torch.int32


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """New tokens of several sequences.

    Attributes:
        tokens: int32 ids, by row of `sources`.
        sources: (T,) int32 which of `tokens` each row is.
        positions: (T,) int32; negative marks an unused row.
        sequences: (T,) int32 row of the page tables.
        full_table: (S, L) int32 pages of the layers without a window.
        window_table: (S, L) int32 pages of the windowed layers.
        decode: B, how many leading rows are single newest tokens.
        tiles: of the other rows, as `attention_prefill` wants them, counted from row 0; None: none.
        last: (n,) int64 rows whose logits are wanted; None: all.
    """

    tokens: Tensor
    sources: Tensor
    positions: Tensor
    sequences: Tensor
    full_table: Tensor
    window_table: Tensor
    decode: int
    tiles: tuple[Tensor, Tensor, Tensor] | None = None
    last: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """The residual stream after the last layer.

    Attributes:
        x: (T, N) float32.
        parts: (Q, N), the last layer's expert outputs, still to be added to it.
    """

    x: Tensor
    parts: Tensor


class Model:
    """The weights with everything that outlives one pass.

    Args:
        weights: on their device.
        cache: pages of keys and values.
        tuning: tile sizes.
        max_decode: most decode rows of a batch.
        max_tokens: most tokens of a batch.
    """

    def __init__(
        self,
        weights: ModelWeights,
        cache: PagedCache,
        tuning: Tuning,
        *,
        max_decode: int,
        max_tokens: int,
    ) -> None:
        self.weights, self.cache, self.tuning = weights, cache, tuning
        self.config, self.device, self.dtype = weights.config, weights.device, weights.dtype
        self.max_tokens = max_tokens
        self.trace: list[Tensor] | None = None  # a list collects each layer's chosen experts
        positions = torch.arange(self.config.max_context_length, device=self.device)
        self.rope = rope_tables(self.config, positions)
        self._split = self._split_scratch(max_decode)
        self._sums = self._split_sums()
        few = max(1, tuning.limit("router_few"))
        self._router_scratch = (
            torch.empty((few, self.config.num_experts), device=self.device),
            torch.zeros(few, dtype=INT32, device=self.device),
        )
        self._rank = self._ints(max_tokens * self.config.experts_per_token)
        tiles = sorted({row.launch.pairs for row in tuning.rows["experts_up"]})
        self._plans = {
            tile: Plan.empty(
                pairs=max_tokens * self.config.experts_per_token,
                experts=self.config.num_experts,
                tile=tile,
                device=self.device,
            )
            for tile in tiles
        }

    def _ints(self, size: int) -> Tensor:
        return torch.empty(size, dtype=INT32, device=self.device)

    def _split_scratch(self, max_decode: int) -> dict[int, SplitScratch]:
        """One per number of splits, for as many rows as use it."""
        config, rows = self.config, self.tuning.rows["attention_decode"]
        return {
            row.launch.splits: SplitScratch.empty(
                batch=min(row.tokens, max_decode),
                kv_heads=config.num_key_value_heads,
                splits=row.launch.splits,
                group=config.num_attention_heads // config.num_key_value_heads,
                dim=config.head_dim,
                device=self.device,
            )
            for row in [*rows, *self.tuning.rows["attention_window"]]
        }

    def _split_sums(self) -> dict[str, SplitSums]:
        """For the few-token form of both expert products."""
        config = self.config
        sizes = {"up": 2 * config.intermediate_size, "down": config.hidden_size}
        return {
            name: SplitSums.empty(
                pairs=self.tuning.limit(f"experts_{name}_direct") * config.experts_per_token,
                rows=rows,
                launch=max(
                    (row.launch for row in self.tuning.rows[f"experts_{name}_direct"]),
                    key=lambda launch: launch.splits * 1024 - launch.rows,
                ),
                device=self.device,
            )
            for name, rows in sizes.items()
        }

    def forward(self, batch: Batch) -> Tensor:
        """Run the batch, write its keys and values to the cache.

        Returns:
            (n, V) float32 logits of the rows in `batch.last`.
        """
        return self.logits(self.stream(batch), batch.last)

    def stream(self, batch: Batch) -> Stream:
        """Run the layers alone; `logits` does the rest."""
        tokens, width = batch.positions.numel(), self.config.hidden_size
        x = torch.empty((tokens, width), dtype=torch.float32, device=self.device)
        spare = torch.empty_like(x)
        normed = torch.empty((tokens, width), dtype=self.dtype, device=self.device)
        embed(
            batch.tokens, batch.sources, self.weights.embedding, x,
            launch=self.tuning.launch("embed", tokens),
        )  # fmt: skip
        parts: Tensor | None = None
        launch = self.tuning.launch("norm", tokens)
        for index, layer in enumerate(self.weights.layers):
            residual_norm(x, parts, layer.attention_norm, x, normed, launch=launch)
            y = self._attention(index, layer, normed, batch)
            x, spare, parts = self._experts(layer, x, y, spare, batch)
        assert parts is not None  # every model has a layer
        return Stream(x, parts)

    def logits(self, stream: Stream, rows: Tensor | None) -> Tensor:
        """The last norm and the unembedding.

        Args:
            stream: of a batch of T tokens.
            rows: (n,) int64 rows of it; None takes all.

        Returns:
            (n, V) float32.
        """
        (tokens, width), x, parts = stream.x.shape, stream.x, stream.parts
        if rows is not None:
            parts = parts.view(tokens, -1, width)[rows].contiguous()
            x = x[rows]
        out = torch.empty((x.shape[0], width), dtype=self.dtype, device=self.device)
        launch = self.tuning.launch("norm", tokens)
        residual_norm(x, parts, self.weights.norm, x, out, launch=launch)
        logits = torch.empty(
            (x.shape[0], self.config.vocab_size), dtype=torch.float32, device=self.device
        )
        self._linear("unembed", out, self.weights.unembedding, None, logits)
        return logits

    def _linear(
        self, operation: str, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor
    ) -> None:
        """A dense product in the form that suits its number of rows."""
        if x.shape[0] <= self.tuning.limit(operation):
            linear(x, weight, bias, out, launch=self.tuning.launch(operation, x.shape[0]))
        else:
            linear_many(x, weight, bias, out)

    def _attention(self, index: int, layer: LayerWeights, normed: Tensor, batch: Batch) -> Tensor:
        """Attention's output of all rows, before the residual: (T, N)."""
        tokens, window = normed.shape[0], self.config.window(index)
        qkv = normed.new_empty((tokens, self.config.qkv_size))
        self._linear("linear", normed, layer.qkv_weight, layer.qkv_bias, qkv)
        heads = self.config.num_attention_heads
        out = normed.new_empty((tokens, heads * self.config.head_dim))
        cache = self.cache.layer(index)
        table = batch.full_table if window is None else batch.window_table
        first = batch.decode
        if first:
            name = "attention_decode" if window is None else "attention_window"
            launch = self.tuning.launch(name, first)
            attention_decode(
                qkv[:first], cache, table, batch.sequences[:first], batch.positions[:first],
                self.rope, layer.sinks, out[:first], self._split[launch.splits],
                window=window, launch=launch,
            )  # fmt: skip
        if batch.tiles is not None:
            rope_cache(
                qkv[first:], cache, table, batch.sequences[first:], batch.positions[first:],
                self.rope, heads=heads, launch=self.tuning.launch("rope_cache", tokens),
            )  # fmt: skip
            attention_prefill(
                qkv, cache, table, batch.positions, batch.tiles, layer.sinks, out,
                window=window, launch=self.tuning.launch("attention_prefill", tokens),
            )  # fmt: skip
        y = torch.empty_like(normed)
        self._linear("linear_out", out, layer.out_weight, layer.out_bias, y)
        return y

    def _experts(
        self, layer: LayerWeights, x: Tensor, y: Tensor, spare: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add attention, choose experts and run them.

        Returns:
            The residual stream (T, N), a spare buffer of its size, and what is still to be added
            to the stream, (Q, N).
        """
        tokens, width = x.shape
        direct = tokens <= self.tuning.limit("experts_up_direct")
        form = "_direct" if direct else ""
        up, down = (self.tuning.launch(f"experts_{name}{form}", tokens) for name in ("up", "down"))
        half = self.dtype == torch.bfloat16 and not up.scaled
        kind = torch.float16 if half else self.dtype
        x, spare, states, chosen, gates = self._route(layer, x, y, spare, batch, kind)
        if self.trace is not None:
            self.trace.append(chosen)
        pairs = chosen.numel()
        hidden = states.new_empty((pairs, self.config.intermediate_size))
        kept = torch.float32 if direct else self.dtype
        rows = torch.empty((pairs, width), device=self.device, dtype=kept)
        limit = self.config.swiglu_limit
        if direct:
            sums = self._sums
            experts_direct(
                states, layer.up, chosen, gates, hidden, sums["up"], swiglu=limit, launch=up
            )
            experts_direct(
                hidden, layer.down, chosen, gates, rows, sums["down"], swiglu=None, launch=down
            )
        else:
            plan = self._plans[up.pairs]
            make_plan(chosen, plan, self._rank, launch=self.tuning.launch("plan", tokens))
            experts_grouped(states, layer.up, plan, gates, hidden, swiglu=limit, launch=up)
            experts_grouped(hidden, layer.down, plan, gates, rows, swiglu=None, launch=down)
        return x, spare, rows

    def _route(
        self,
        layer: LayerWeights,
        x: Tensor,
        y: Tensor,
        spare: Tensor,
        batch: Batch,
        kind: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Add attention, norm, choose.

        Returns:
            Stream and spare buffer (T, N), normed states (T, N) in `kind`, experts (Q,) int32 and
            their weights (Q,) float32.
        """
        tokens, top = x.shape[0], self.config.experts_per_token
        used = slice(tokens * top)
        chosen = self._ints((tokens + 1) * top)
        gates = torch.empty((tokens + 1) * top, dtype=torch.float32, device=self.device)
        if tokens <= self.tuning.limit("router_few"):
            states = torch.empty_like(x, dtype=kind)
            router_few(
                x, y, layer.mlp_norm, layer.gate_weight, layer.gate_bias, batch.positions,
                total=spare, normed=states, scratch=self._router_scratch,
                chosen=chosen[used], gates=gates[used],
                launch=self.tuning.launch("router_few", tokens),
            )  # fmt: skip
            return spare, x, states, chosen[used], gates[used]
        states = torch.empty_like(y)
        norm = self.tuning.launch("norm", tokens)
        residual_norm(x, y, layer.mlp_norm, x, states, launch=norm)
        router_many(
            states, layer.gate_weight, layer.gate_bias, batch.positions, chosen, gates,
            top=top, launch=self.tuning.launch("router_many", tokens),
        )  # fmt: skip
        if kind == torch.float16:
            states = states.clamp(-LARGEST_HALF, LARGEST_HALF).to(kind)
        return x, spare, states, chosen[used], gates[used]


def prefill_tiles(
    counts: list[tuple[int, int]], *, first: int, tokens: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut chunks into tiles for `attention_prefill`.

    Args:
        counts: (row of the page tables, tokens) of each chunk, in order of the batch.
        first: row of the batch where the chunks begin.
        tokens: tokens a tile holds.
        device: where the result goes.

    Returns:
        Sequence, first row and size of each tile, int32.
    """
    tiles = []
    for sequence, count in counts:
        tiles += [
            (sequence, first + start, min(tokens, count - start))
            for start in range(0, count, tokens)
        ]
        first += count
    columns = torch.tensor(tiles, dtype=INT32).t().contiguous()
    there = columns.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else columns
    return there[0], there[1], there[2]


def pages_for(tokens: int) -> int:
    """Pages that so many positions take."""
    return -(-tokens // PAGE_SIZE)
