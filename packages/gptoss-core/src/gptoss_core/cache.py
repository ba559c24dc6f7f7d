"""Keys and values of the tokens seen so far: dense, and a ring for the windowed layers.

Both are used in the same way, one layer after the other in each pass:

    cache.append(layer, k, v)        # the pass's new tokens, already rotated
    k, v, first = cache.view(layer)  # all that these queries may see; k[0] stands at `first`

A pass counts once its last layer was appended, so one that fails half-way leaves nothing behind.

`RingCache` keeps 128 slots for each layer with a window: half the memory at long context. A ring
cannot be wound back, so it holds snapshots: at every `block` tokens and wherever `mark` was called
(the ends of messages). Example, block 256: 700 tokens are cached, a snapshot was marked at 600 and
`truncate(650)` is called. It returns 600, and the caller feeds tokens 600 to 649 again. Harmony
drops old analysis, so every chat turn goes back like this.

Dimensions: T tokens appended, S slots held, G kv heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from gptoss_core.errors import ShapeError
from gptoss_harmony.config import ModelConfig

Pair: TypeAlias = tuple[Tensor, Tensor]  # keys and values, (S, G, D) each
Rings = dict[int, Pair]  # layer -> at most `sliding_window` slots
MOST_ROOM = 4096  # slots that a full buffer grows by; up to as many it doubles


class KVCache(Protocol):
    """What the model asks of a cache; positions are absolute and start at 0."""

    @property
    def length(self) -> int:
        """Tokens that every layer holds."""
        ...

    def append(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Add (T, G, D) keys and values after the `length` tokens held."""
        ...

    def view(self, layer: int) -> tuple[Tensor, Tensor, int]:
        """Keys, values (S, G, D) of `layer` and the position of the first, the newest included."""
        ...

    def mark(self, position: int) -> None:
        """Say that `truncate` and `fork` are likely to come back to `position`."""
        ...

    def truncate(self, position: int) -> int:
        """Forget the tokens from `position` on; returns the position really reached (<= asked)."""
        ...

    def fork(self, position: int) -> KVCache:
        """An independent cache of the tokens before `position`; its `length` was really reached."""
        ...

    def trim(self) -> None:
        """Give back the memory that only saves work later: snapshots and room for growth."""
        ...

    def nbytes(self) -> int:
        """Bytes held now, snapshots included."""
        ...


class DenseCache:
    """Every key of every layer; goes back to any position.

    Memory is taken as tokens arrive, in the dtype and on the device of the keys.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._length = 0
        self._pending = 0  # tokens of the pass under way
        self._buffers: list[Pair | None] = [None] * config.num_hidden_layers

    @property
    def length(self) -> int:
        """Tokens that every layer holds."""
        return self._length

    def append(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Add (T, G, D) keys and values after the `length` tokens held."""
        self._pending = k.shape[0]
        self._buffers[layer] = _write(self._buffers[layer], self._length, k, v)
        if layer == self.config.num_hidden_layers - 1:
            self._length += self._pending
            self._pending = 0

    def view(self, layer: int) -> tuple[Tensor, Tensor, int]:
        """Keys, values (S, G, D) of `layer` and the position of the first, which is 0."""
        k, v = _held(self._buffers[layer], layer)
        stop = self._length + self._pending
        return k[:stop], v[:stop], 0

    def mark(self, position: int) -> None:
        """Nothing to do: every position can be reached."""

    def truncate(self, position: int) -> int:
        """Forget the tokens from `position` on; returns the length reached."""
        self._length, self._pending = max(0, min(position, self._length)), 0
        return self._length

    def fork(self, position: int) -> DenseCache:
        """An independent copy of the tokens before `position`."""
        other = DenseCache(self.config)
        other._length = max(0, min(position, self._length))
        other._buffers = [_copy(pair, other._length) for pair in self._buffers]
        return other

    def trim(self) -> None:
        """Give back the room for growth."""
        for layer, pair in enumerate(self._buffers):
            self._buffers[layer] = _copy(pair, self._length)

    def nbytes(self) -> int:
        """Bytes of the buffers, room for growth included."""
        return _bytes(tensor for pair in self._buffers if pair for tensor in pair)


class RingCache:
    """The last `sliding_window` slots of the windowed layers, every key of the others.

    Args:
        config: the model's sizes.
        block: tokens between automatic snapshots.
        max_snapshots: snapshots kept at once; on 20b each takes 3 MiB in bf16. When there are more,
            the one whose neighbours are nearest goes, automatic ones before marked ones; the first
            and the last stay.
    """

    def __init__(self, config: ModelConfig, *, block: int = 256, max_snapshots: int = 32) -> None:
        if block < 1 or max_snapshots < 2:
            raise ShapeError(
                f"a ring cache needs block >= 1 and max_snapshots >= 2, "
                f"not {block} and {max_snapshots}"
            )
        self.config = config
        self.block = block
        self.max_snapshots = max_snapshots
        self._length = 0
        self._pending = 0
        self._buffers: list[Pair | None] = [None] * config.num_hidden_layers  # layers that see all
        self._rings: Rings = {}  # of the windowed layers, up to `length`
        self._snapshots: dict[int, Rings] = {}  # position -> the rings as they were there
        self._marks: set[int] = set()
        self._next_rings: Rings = {}  # of the pass under way
        self._next_snapshots: dict[int, Rings] = {}
        self._seen: tuple[int, Tensor, Tensor, int] | None = None  # the view of one windowed layer

    @property
    def length(self) -> int:
        """Tokens that every layer holds."""
        return self._length

    def append(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Add (T, G, D) keys and values after the `length` tokens held."""
        if layer == 0:
            self._next_rings, self._next_snapshots = {}, {}
        self._pending, self._seen = k.shape[0], None
        window = self.config.window(layer)
        if window is None:
            self._buffers[layer] = _write(self._buffers[layer], self._length, k, v)
        else:
            self._append_windowed(layer, k, v, window)
        if layer == self.config.num_hidden_layers - 1:
            self._commit()

    def _append_windowed(self, layer: int, k: Tensor, v: Tensor, window: int) -> None:
        """Join ring and new tokens; cut the next ring and the snapshots out of the result."""
        stop = self._length + k.shape[0]
        if layer in self._rings:
            old_k, old_v = self._rings[layer]
            k, v = torch.cat([old_k, k]), torch.cat([old_v, v])  # (S, G, D)
        first = stop - k.shape[0]
        self._seen = (layer, k, v, first)
        self._next_rings[layer] = _last((k, v), k.shape[0], window)
        for position in self._wanted(stop):
            rings = self._next_snapshots.setdefault(position, {})
            rings[layer] = _last((k, v), position - first, window)

    def _wanted(self, stop: int) -> list[int]:
        """The positions of this pass to keep a snapshot of; no more than can be kept."""
        blocks = range((self._length // self.block + 1) * self.block, stop + 1, self.block)
        marks = {position for position in self._marks if self._length < position <= stop}
        wanted = sorted(marks | set(blocks))
        return wanted[:1] + wanted[1:][-(self.max_snapshots - 1) :]

    def _commit(self) -> None:
        """The pass is complete: what it left becomes the cache."""
        self._length, self._pending = self._length + self._pending, 0
        self._rings, self._next_rings = self._next_rings, {}
        self._snapshots.update(self._next_snapshots)
        self._next_snapshots = {}
        self._thin()

    def _thin(self) -> None:
        """Drop snapshots until `max_snapshots` are left."""
        while len(self._snapshots) > self.max_snapshots:
            points = sorted(self._snapshots)
            gaps = {
                point: (point in self._marks, after - before)
                for before, point, after in zip(points, points[1:], points[2:], strict=False)
            }
            dropped = min(gaps, key=gaps.__getitem__)
            del self._snapshots[dropped]
            self._marks.discard(dropped)

    def view(self, layer: int) -> tuple[Tensor, Tensor, int]:
        """Keys, values (S, G, D) of `layer` and the position of the first, the newest included."""
        if self._seen is not None and self._seen[0] == layer:
            return self._seen[1:]
        if self.config.window(layer) is None:
            k, v = _held(self._buffers[layer], layer)
            stop = self._length + self._pending
            return k[:stop], v[:stop], 0
        k, v = _held(self._rings.get(layer), layer)
        return k, v, self._length - k.shape[0]

    def mark(self, position: int) -> None:
        """Keep a snapshot at `position`: now if it is `length`, else when it is passed."""
        if position == self._length and self._rings:
            self._snapshots[position] = self._rings
        if position in self._snapshots or position > self._length:
            self._marks.add(position)
        self._thin()

    def truncate(self, position: int) -> int:
        """Forget the tokens from `position` on; returns the position really reached (<= asked)."""
        self._length, self._rings = self._reach(position)
        self._pending, self._seen = 0, None
        self._snapshots = {p: rings for p, rings in self._snapshots.items() if p <= self._length}
        self._marks = {mark for mark in self._marks if mark <= self._length}
        return self._length

    def _reach(self, position: int) -> tuple[int, Rings]:
        """The last position up to `position` whose rings can be had, and those rings.

        Rings that hold the slots from f on serve every p with f = 0 or p - f >= window - 1: the
        token at p sees window - 1 keys before itself.
        """
        window = self.config.sliding_window
        reached, rings, cut = 0, Rings(), 0
        for end, held in (*self._snapshots.items(), (self._length, self._rings)):
            target = max(0, min(position, end))
            first = end - next((k.shape[0] for k, _ in held.values()), 0)
            if target > reached and (first == 0 or target - first >= window - 1):
                reached, rings, cut = target, held, end - target
        return reached, {
            layer: (k[: k.shape[0] - cut], v[: v.shape[0] - cut]) for layer, (k, v) in rings.items()
        }

    def fork(self, position: int) -> RingCache:
        """An independent cache of the tokens before `position`; its `length` was really reached.

        Rings and snapshots are never written in place, so both caches share them.
        """
        other = RingCache(self.config, block=self.block, max_snapshots=self.max_snapshots)
        other._length, other._rings = self._reach(position)
        other._buffers = [_copy(pair, other._length) for pair in self._buffers]
        other._snapshots = {p: rings for p, rings in self._snapshots.items() if p <= other._length}
        other._marks = self._marks & set(other._snapshots)
        return other

    def trim(self) -> None:
        """Give back snapshots and the room for growth; positions to come may be marked again."""
        self._snapshots = {}
        self._marks = {mark for mark in self._marks if mark > self._length}
        self._seen = None
        self._rings = {layer: (k.clone(), v.clone()) for layer, (k, v) in self._rings.items()}
        for layer, pair in enumerate(self._buffers):  # one by one: old and new are both there
            self._buffers[layer] = _copy(pair, self._length)

    def nbytes(self) -> int:
        """Bytes held now, room for growth and snapshots included."""
        pairs = [pair for pair in self._buffers if pair]
        for rings in (self._rings, *self._snapshots.values()):
            pairs.extend(rings.values())
        return _bytes(tensor for pair in pairs for tensor in pair)


def _write(pair: Pair | None, length: int, k: Tensor, v: Tensor) -> Pair:
    """Write after `length` slots, in place where there is room, else in longer buffers."""
    stop = length + k.shape[0]
    if pair is None or stop > pair[0].shape[0]:
        room = max(stop, min(2 * length, length + MOST_ROOM), 64)
        grown = k.new_empty(room, *k.shape[1:]), v.new_empty(room, *v.shape[1:])
        if pair is not None:
            for new, old in zip(grown, pair, strict=True):
                new[:length] = old[:length]
        pair = grown
    pair[0][length:stop], pair[1][length:stop] = k, v
    return pair


def _last(pair: Pair, stop: int, window: int) -> Pair:
    """The last `window` slots before `stop`, copied where a view would hold much more memory.

    Values come as views of a whole pass's projection, all sequences and heads of it.
    """
    k, v = (tensor[max(0, stop - window) : stop] for tensor in pair)
    return _own(k), _own(v)


def _own(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where the memory behind it is more than twice as large."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > 2 * tensor.nbytes else tensor


def _held(pair: Pair | None, layer: int) -> Pair:
    """The pair, or an error where nothing was appended yet."""
    if pair is None:
        raise ShapeError(f"layer {layer} of the cache is empty; append keys before viewing them")
    return pair


def _copy(pair: Pair | None, length: int) -> Pair | None:
    """The first `length` slots in memory of their own."""
    return None if pair is None else (pair[0][:length].clone(), pair[1][:length].clone())


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory behind the tensors, each piece counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
