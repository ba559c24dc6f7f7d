"""The forward pass on one GPU: a batch of new tokens in, logits of the asked-for rows out.

    x = embedding[token]
    per layer:  x = x + attention(norm(x));  x = x + experts(norm(x))
    logits = unembedding(norm(x))

A batch is first the newest token of every answering sequence, one row each, then whole chunks of
prompts. What a pass looks up and allocates once is its `Work`; the same code runs eagerly and while
a CUDA graph is captured.

Dimensions: T tokens, B of them decode rows, Q = T K pairs, N model width, H query heads, G kv
heads, D head dim, K experts per token, E experts, V vocabulary rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_core.rope import rope_tables
from gptoss_triton.attention_decode import SplitScratch, attention_decode, parts_of
from gptoss_triton.attention_prefill import attention_prefill
from gptoss_triton.cache import PAGE_SIZE, PagedCache
from gptoss_triton.experts_few import experts_few
from gptoss_triton.experts_grouped import experts_grouped
from gptoss_triton.linear import linear, linear_many
from gptoss_triton.norm import embed, residual_norm
from gptoss_triton.plan import Plan, make_plan
from gptoss_triton.rope_cache import rope_cache
from gptoss_triton.router import RouterScratch, router_few, router_many
from gptoss_triton.tuning import Tuning
from gptoss_triton.weights import LayerWeights, ModelWeights
from gptoss_triton.work import Work

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
class Span:
    """Some rows of a batch, as attention takes them.

    Attributes:
        qkv: (n, (H + 2 G) D).
        sequences: (n,) int32.
        positions: (n,) int32.
        heads: (n, H D), attention's output.
    """

    qkv: Tensor
    sequences: Tensor
    positions: Tensor
    heads: Tensor

    @classmethod
    def of(cls, work: Work, batch: Batch, rows: slice) -> Span:
        """Cut them out."""
        return cls(work.qkv[rows], batch.sequences[rows], batch.positions[rows], work.heads[rows])


@dataclass(frozen=True, slots=True)
class Stream:
    """The residual stream after the last layer.

    Attributes:
        x: (T, N) float32.
        parts: (Q, N) float32, the last layer's expert outputs, still to be added to it.
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
        self.trace: list[Tensor] | None = None  # a list collects each layer's chosen experts
        positions = torch.arange(self.config.max_context_length, device=self.device)
        self.rope = rope_tables(self.config, positions)
        layers = range(self.config.num_hidden_layers)
        self._pages = [cache.layer(index) for index in layers]
        self._window = [self.config.window(index) for index in layers]
        self._split = self._split_scratch(max_decode)
        self._router_scratch = RouterScratch.empty(
            rows=max(
                min(row.tokens, max_tokens) * row.launch.splits
                for row in [*tuning.rows["router_few"], *tuning.rows["router_many"]]
            ),
            experts=self.config.num_experts,
            device=self.device,
        )
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

    def _split_scratch(self, max_decode: int) -> SplitScratch:
        """One for all rows of the table, as large as the neediest of them wants it."""
        config, tables = self.config, self.tuning.rows
        rows = [*tables["attention_decode"], *tables["attention_window"]]
        kv_heads = config.num_key_value_heads
        return SplitScratch.empty(
            pairs=max_decode * kv_heads,
            parts=max(min(row.tokens, max_decode) * parts_of(row.launch) for row in rows)
            * kv_heads,
            group=config.num_attention_heads // kv_heads,
            dim=config.head_dim,
            device=self.device,
        )

    def forget(self) -> None:
        """Drop weights and pages; the model is useless afterwards."""
        empty = self.cache.full.new_empty(0)
        self._pages.clear()
        self.cache = PagedCache(full=empty, windowed=empty, config=self.config)
        self.weights = ModelWeights(
            config=self.config, embedding=empty, layers=(), norm=empty, unembedding=empty
        )

    def forward(self, batch: Batch, out: Tensor | None = None) -> Tensor:
        """Run the batch, write its keys and values to the cache.

        Args:
            batch: of T tokens.
            out: (n, V) float32 to write to; None takes new memory.

        Returns:
            (n, V) float32 logits of the rows in `batch.last`.
        """
        return self.logits(self.stream(batch), batch.last, out=out)

    def stream(self, batch: Batch) -> Stream:
        """Run the layers alone; `logits` does the rest."""
        work = Work.begin(
            self.config,
            self.tuning,
            tokens=batch.positions.numel(),
            decode=batch.decode,
            device=self.device,
            dtype=self.dtype,
        )
        x, spare = work.x, work.spare
        embed(batch.tokens, batch.sources, self.weights.embedding, x, launch=work.launch["embed"])
        first = batch.decode
        spans = Span.of(work, batch, slice(first)), Span.of(work, batch, slice(first, None))
        pairs = slice(batch.positions.numel() * self.config.experts_per_token)
        chosen, gates = work.chosen[pairs], work.gates[pairs]
        parts: Tensor | None = None
        for index, layer in enumerate(self.weights.layers):
            norm = work.launch["norm"]
            residual_norm(x, parts, layer.attention_norm, x, work.normed, launch=norm)
            self._attention(index, work, batch, spans)
            x, spare = self._route(layer, work, x, spare, batch.positions)
            if self.trace is not None:
                self.trace.append(chosen.clone())
            self._experts(layer, work, chosen, gates)
            parts = work.parts
        assert parts is not None  # every model has a layer
        return Stream(x, parts)

    def logits(self, stream: Stream, rows: Tensor | None, *, out: Tensor | None = None) -> Tensor:
        """The last norm and the unembedding.

        Args:
            stream: of a batch of T tokens.
            rows: (n,) int64 rows of it; None takes all, and adds the parts to the stream in place.
            out: (n, V) float32 to write to; None takes new memory.

        Returns:
            (n, V) float32.
        """
        (tokens, width), x, parts = stream.x.shape, stream.x, stream.parts
        if rows is not None:
            parts = parts.view(tokens, -1, width)[rows].contiguous()
            x = x[rows]
        normed = torch.empty((x.shape[0], width), dtype=self.dtype, device=self.device)
        launch = self.tuning.launch("norm", tokens)
        residual_norm(x, parts, self.weights.norm, x, normed, launch=launch)
        if out is None:
            shape = (x.shape[0], self.config.vocab_size)
            out = torch.empty(shape, dtype=torch.float32, device=self.device)
        self._linear("unembed", normed, self.weights.unembedding, None, out)
        return out

    def _linear(
        self, operation: str, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor
    ) -> None:
        """A dense product in the form that suits its number of rows."""
        if x.shape[0] <= self.tuning.limit(operation):
            linear(x, weight, bias, out, launch=self.tuning.launch(operation, x.shape[0]))
        else:
            linear_many(x, weight, bias, out)

    def _attention(self, index: int, work: Work, batch: Batch, spans: tuple[Span, Span]) -> None:
        """Attention of one layer, `work.normed` to `work.y`, before the residual."""
        layer, window, (answers, chunks) = self.weights.layers[index], self._window[index], spans
        table = batch.full_table if window is None else batch.window_table
        cache = self._pages[index]
        self._linear("linear", work.normed, layer.qkv_weight, layer.qkv_bias, work.qkv)
        if batch.decode:
            launch = work.decode["attention_decode" if window is None else "attention_window"]
            attention_decode(
                answers.qkv, cache, table, answers.sequences, answers.positions, self.rope,
                layer.sinks, answers.heads, self._split,
                window=window, launch=launch,
            )  # fmt: skip
        if batch.tiles is not None:
            rope_cache(
                chunks.qkv, cache, table, chunks.sequences, chunks.positions, self.rope,
                heads=self.config.num_attention_heads, launch=work.launch["rope_cache"],
            )  # fmt: skip
            prefill = "attention_prefill" if window is None else "attention_prefill_window"
            attention_prefill(
                work.qkv, cache, table, batch.positions, batch.tiles, layer.sinks, work.heads,
                window=window, launch=work.launch[prefill],
            )  # fmt: skip
        self._linear("linear_out", work.heads, layer.out_weight, None, work.y)

    def _experts(self, layer: LayerWeights, work: Work, chosen: Tensor, gates: Tensor) -> None:
        """Run the chosen experts, `work.states` to `work.parts`."""
        kind = "_few" if work.few_experts else ""
        up, down = work.launch["experts_up" + kind], work.launch["experts_down" + kind]
        states, hidden, parts = work.states, work.hidden, work.parts
        limit = self.config.swiglu_limit
        if work.few_experts:
            experts_few(states, layer.up, chosen, gates, hidden, swiglu=limit, launch=up)
            experts_few(hidden, layer.down, chosen, gates, parts, swiglu=None, launch=down)
            return
        plan = self._plans[up.pairs]
        make_plan(chosen, plan, launch=work.launch["plan"])
        experts_grouped(states, layer.up, plan, gates, hidden, swiglu=limit, launch=up)
        experts_grouped(hidden, layer.down, plan, gates, parts, swiglu=None, launch=down)

    def _route(
        self, layer: LayerWeights, work: Work, x: Tensor, spare: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add attention's output, norm it into `work.states`, choose experts.

        Returns:
            The residual stream and the spare buffer, (T, N) each.
        """
        top = self.config.experts_per_token
        if work.few_router:
            router_few(
                x, work.y, layer.out_bias, layer.mlp_norm, layer.gate_weight, layer.gate_bias,
                positions, total=spare, normed=work.states, scratch=self._router_scratch,
                chosen=work.chosen, gates=work.gates, top=top, launch=work.launch["router_few"],
            )  # fmt: skip
            return spare, x
        residual_norm(
            x, work.y, layer.mlp_norm, x, work.states,
            shift=layer.out_bias, launch=work.launch["norm"],
        )  # fmt: skip
        router_many(
            work.states, layer.gate_weight, layer.gate_bias, positions, work.chosen, work.gates,
            scratch=self._router_scratch, top=top, launch=work.launch["router_many"],
        )  # fmt: skip
        return x, spare


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
