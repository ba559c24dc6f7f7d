from dataclasses import replace

import pytest
import torch

from gptoss_core import ops
from gptoss_core.rope import apply_rope
from gptoss_triton.attention_decode import SplitScratch, attention_decode, parts_of
from gptoss_triton.attention_prefill import attention_prefill
from gptoss_triton.launch import Launch
from gptoss_triton.rope_cache import PAGE, rope_cache

SIZE = PAGE.value
DIM, KV_HEADS, GROUP = 16, 2, 3
HEADS = KV_HEADS * GROUP


class History:
    """Sequences in a shuffled paged cache whose unused slots are poisoned."""

    def __init__(self, place, lengths):
        self.place, self.lengths = place, lengths
        pages = [-(-length // SIZE) for length in lengths]
        order = (torch.randperm(sum(pages)) + 1).tolist()  # page 0 stays poisoned
        self.table = torch.zeros(len(lengths), max(pages), dtype=torch.int32)
        for row, count in enumerate(pages):
            for page in range(count):
                self.table[row, page] = order.pop()
        shape = (sum(pages) + 1, KV_HEADS, SIZE, DIM)
        self.cache = (place.poisoned(*shape), place.poisoned(*shape))
        angles = torch.randn(max(lengths), DIM // 2)
        self.tables = (angles.cos().to(place.device), angles.sin().to(place.device))
        rows = (HEADS + 2 * KV_HEADS) * DIM
        self.qkv = [place.random(length, rows) for length in lengths]

    def rotated(self, row):
        """Float32 q, k, v of a whole sequence."""
        heads = self.qkv[row].float().unflatten(-1, (-1, DIM))
        q, k, v = heads.split([HEADS, KV_HEADS, KV_HEADS], dim=-2)
        cos, sin = (table[: len(q)] for table in self.tables)
        return apply_rope(q, cos, sin), apply_rope(k, cos, sin), v

    def expected(self, row, start, sinks, window):
        """Attention outputs of positions start and later."""
        q, k, v = self.rotated(row)
        out, lse = ops.attention(q[start:], k, v, window=window, offset=start)
        return ops.apply_sink(out, lse, sinks.float()).flatten(-2)

    def write(self, starts, stops):
        """Put keys and values of some ranges into the cache; returns the chunk as a batch."""
        pieces = [q[a:b] for q, a, b in zip(self.qkv, starts, stops, strict=True)]
        qkv = torch.cat(pieces).clone()
        counts = [len(piece) for piece in pieces]
        sequences = [row for row, count in enumerate(counts) for _ in range(count)]
        positions = [p for a, b in zip(starts, stops, strict=True) for p in range(a, b)]
        positions = self.place.ints(positions)
        table = self.table.to(self.place.device)
        rope_cache(
            qkv, self.cache, table, self.place.ints(sequences), positions, self.tables,
            heads=HEADS, launch=Launch(),
        )  # fmt: skip
        return qkv, table, positions, counts


@pytest.mark.parametrize(("window", "tokens"), [(None, 16), (100, 32), (None, 32), (100, 16)])
def test_chunks_at_any_offset_equal_whole(place, window, tokens):
    lengths, cuts = (130, 40, 3), (90, 0, 2)
    history = History(place, lengths)
    sinks = place.random(HEADS)
    for starts, stops in (((0, 0, 0), cuts), (cuts, lengths)):
        qkv, table, positions, counts = history.write(starts, stops)
        tiles, first = [], 0
        for row, count in enumerate(counts):
            tiles += [(row, first + i, min(tokens, count - i)) for i in range(0, count, tokens)]
            first += count
        out = place.poisoned(len(qkv), HEADS * DIM)
        columns = tuple(place.ints(column) for column in zip(*tiles, strict=True))
        attention_prefill(
            qkv, history.cache, table, positions, columns, sinks, out,
            window=window, launch=Launch(pairs=tokens, stages=2),
        )  # fmt: skip
        parts = out.split(counts)
        for row, part in enumerate(parts):
            if len(part):
                expected = history.expected(row, starts[row], sinks, window)[: len(part)]
                place.close(part, expected)


@pytest.mark.parametrize(
    ("window", "splits", "launch"),
    [
        (None, 1, Launch(rows=64, warps=1, stages=2)),
        (None, 2, Launch(rows=32, columns=4, warps=4, stages=3)),
        (None, 8, Launch(rows=64, columns=4, warps=2, stages=2)),
        (100, 1, Launch(rows=64, warps=4, stages=1)),
        (100, 4, Launch(rows=32, columns=2, warps=1, stages=2)),
    ],
)
def test_decode_equals_the_reference_for_any_split(place, window, splits, launch):
    lengths = (1, 65, 330)  # 65: the newest key alone in its page; 330: six pages
    history = History(place, lengths)
    sinks = place.random(HEADS)
    history.write([0] * len(lengths), [length - 1 for length in lengths])
    qkv = torch.stack([q[-1] for q in history.qkv] + [history.qkv[0][0]])
    positions = place.ints([length - 1 for length in lengths] + [-1])
    launch = replace(launch, splits=splits)
    scratch = SplitScratch.empty(
        pairs=len(qkv) * KV_HEADS, parts=len(qkv) * KV_HEADS * parts_of(launch), group=GROUP,
        dim=DIM, device=place.device,
    )  # fmt: skip
    table = torch.cat([history.table, history.table[:1]]).to(place.device)
    out = place.poisoned(len(qkv), HEADS * DIM)
    sequences = place.ints(range(len(qkv)))
    attention_decode(
        qkv, history.cache, table, sequences, positions, history.tables, sinks, out, scratch,
        window=window, launch=launch,
    )  # fmt: skip
    for row, length in enumerate(lengths):
        place.close(out[row : row + 1], history.expected(row, length - 1, sinks, window))
        page = history.table[row, (length - 1) // SIZE]
        _, k, v = history.rotated(row)
        place.close(history.cache[0][page, :, (length - 1) % SIZE], k[-1])
        place.close(history.cache[1][page, :, (length - 1) % SIZE], v[-1])
    assert torch.isnan(out[-1]).all()
    assert not scratch.arrived.any()
