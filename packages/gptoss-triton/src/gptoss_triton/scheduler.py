"""What the next step computes: continuous batching with a token budget, in pure Python.

Every step takes one position of each answering sequence and fills the rest of the budget with
chunks of prompts, oldest first. Sequences are admitted in order of arrival while there are slots
and pages. When pages run out, the sequence that was admitted last gives all of its own back and is
read again later; the oldest always goes on, so everything ends.

    step = scheduler.plan()          # None: nothing to do
    ...launch it...
    scheduler.launched(step)
    ...tokens come back...
    scheduler.drew(sequence, token, ends=False)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from gptoss_triton.pages import PagePool, block_name
from gptoss_triton.sequence import Sequence


@dataclass(slots=True, kw_only=True)
class Step:
    """One batch.

    Attributes:
        decode: sequences that compute the position of their newest token.
        chunks: sequences that read so many tokens from position `launched` on.
        admitted: sequences that got a slot for this step.
        pages: (of the windowed layers, slot, block, page) to be written to the tables.
        crowded: whether a sequence had to give its pages back.
    """

    decode: list[Sequence] = field(default_factory=list)
    chunks: list[tuple[Sequence, int]] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)
    pages: list[tuple[bool, int, int, int]] = field(default_factory=list)
    crowded: bool = False

    def forget(self, victim: Sequence) -> None:
        """Leave a sequence out that is about to lose its pages."""
        self.decode = [sequence for sequence in self.decode if sequence is not victim]
        self.chunks = [chunk for chunk in self.chunks if chunk[0] is not victim]
        self.pages = [change for change in self.pages if change[1] != victim.slot]
        self.crowded = True

    @property
    def empty(self) -> bool:
        """Whether there is nothing to launch."""
        return not self.decode and not self.chunks


class Scheduler:
    """Queues, slots and pages.

    Args:
        full: pool of the layers without a window.
        windowed: pool of the windowed layers.
        page: positions a page holds.
        window: keys a windowed query sees.
        slots: most sequences that run at once.
        budget: most tokens a step computes; at least `slots`.
        reuse: whether prefixes are shared.
        reserve: whether a sequence gets the pages of its whole answer before it starts, so that it
            never loses any.
    """

    def __init__(
        self,
        full: PagePool,
        windowed: PagePool,
        *,
        page: int,
        window: int,
        slots: int,
        budget: int,
        reuse: bool = True,
        reserve: bool = False,
    ) -> None:
        assert budget > slots, "a step must have room for a chunk beside all answers"
        self.full, self.windowed = full, windowed
        self.page, self.window, self.budget = page, window, budget
        self.reuse, self.reserve = reuse, reserve
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in order of admission
        self._slots = list(range(slots - 1, -1, -1))

    @property
    def busy(self) -> bool:
        """Whether any sequence is here."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence. Its limit must fit the pools; see `fits`."""
        self.waiting.append(sequence)

    def fits(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens could run alone."""
        blocks = -(-tokens // self.page)
        most = min(blocks, self._window_blocks(self.budget))
        return blocks <= self.full.count and most <= self.windowed.count

    def _window_blocks(self, chunk: int) -> int:
        """Windowed pages that a chunk can need at once."""
        return -(-(chunk + self.window) // self.page) + 1

    # Planning.

    def plan(self, *, may_preempt: bool = True) -> Step | None:
        """Choose the next step.

        Args:
            may_preempt: whether sequences may lose their pages. Not while tokens are still on
                their way back; the caller then collects them and plans again.

        Returns:
            None if nothing can be launched now.
        """
        step = Step()
        for sequence in list(self.running):
            if sequence.running and sequence.wants_more and sequence.answering:
                if not self._room(sequence, 1, step, may_preempt=may_preempt):
                    continue
                step.decode.append(sequence)
        left = self.budget - len(step.decode)
        for sequence in list(self.running):
            if left and sequence.running and not sequence.answering and sequence.pending > 0:
                left -= self._chunk(sequence, left, step, may_preempt=may_preempt)
        if not step.crowded:
            self._admit(left, step)
        return None if step.empty else step

    def _chunk(self, sequence: Sequence, left: int, step: Step, *, may_preempt: bool) -> int:
        """Read as much of a prompt as budget and pages allow; returns the tokens taken."""
        if sequence.finished:
            return 0
        count = min(left, sequence.pending)
        while count and not self._room(sequence, count, step):
            count //= 2
        if not count and self._room(sequence, 1, step, may_preempt=may_preempt):
            count = 1
        if count:
            step.chunks.append((sequence, count))
        return count

    def _admit(self, left: int, step: Step) -> None:
        """Start waiting sequences in order, as long as the first one finds room."""
        while left > 0 and self.waiting and self._slots:
            sequence = self.waiting[0]
            if sequence.finished:
                self.waiting.popleft()
                continue
            sequence.slot = self._slots.pop()
            self._reuse_prefix(sequence, step)
            count = self._first_chunk(sequence, left, step)
            if not count:
                step.pages = [change for change in step.pages if change[1] != sequence.slot]
                self._give_back(sequence)
                return
            self.waiting.popleft()
            self.running.append(sequence)
            step.admitted.append(sequence)
            step.chunks.append((sequence, count))
            if sequence.cached is None:
                sequence.cached = sequence.launched
            left -= count

    def _first_chunk(self, sequence: Sequence, left: int, step: Step) -> int:
        """How much a new sequence may read at once; 0 if it must wait."""
        count = min(left, sequence.pending)
        if self.reserve and not self._reserve(sequence, step):
            return 0
        # Room for a whole chunk, and a page to spare for each sequence that answers already.
        blocks = -(-(sequence.launched + count) // self.page) - len(sequence.full_pages)
        spare = 0 if self.reserve else len(self.running)
        if self.full.free >= blocks + spare and self._room(sequence, count, step):
            return count
        if self.running:
            return 0
        while count and not self._room(sequence, count, step):
            count //= 2
        return count

    def _reserve(self, sequence: Sequence, step: Step) -> bool:
        """Take the full pages of a whole answer, if all others' next windowed pages are safe."""
        blocks = -(-sequence.limit // self.page)
        windows = self._window_blocks(1) * (len(self.running) + 1) + -(-self.budget // self.page)
        # A lone sequence always gets in: the context was planned to fit the pools.
        crowded = self.running and windows > self.windowed.count
        if crowded or self.full.free < blocks:
            return False
        self._grow_full(sequence, blocks, step)
        return True

    def _reuse_prefix(self, sequence: Sequence, step: Step) -> None:
        """Share the longest prefix whose full pages and last windowed pages are known."""
        self._name_blocks(sequence)
        if not self.reuse or sequence.fresh:
            return
        most = (len(sequence.tokens) - 1) // self.page  # at least one token must be computed
        full: list[int] = []
        for name in sequence.names[:most]:
            page = self.full.find(name)
            if page is None:
                break
            full.append(page)
        for count in range(len(full), 0, -1):
            first = max(0, count * self.page - self.window + 1) // self.page
            window = [self.windowed.find(name) for name in sequence.names[first:count]]
            if None not in window:
                tail = [page for page in window if page is not None]
                self._share(sequence, full[:count], tail, step)
                return

    def _share(self, sequence: Sequence, full: list[int], window: list[int], step: Step) -> None:
        """Make a sequence an owner of its prefix's pages, and skip what they hold."""
        first = len(full) - len(window)
        sequence.full_pages = [self.full.share(page) for page in full]
        sequence.window_pages = [None] * first
        sequence.window_pages += [self.windowed.share(page) for page in window]
        sequence.launched = len(full) * self.page
        slot = sequence.slot
        step.pages += [(False, slot, block, page) for block, page in enumerate(full)]
        step.pages += [(True, slot, first + block, page) for block, page in enumerate(window)]

    # Pages.

    def _room(
        self, sequence: Sequence, count: int, step: Step, *, may_preempt: bool = False
    ) -> bool:
        """Make sure that a sequence has pages for its next positions."""
        self._drop_window(sequence)
        while not self._grow(sequence, sequence.launched + count, step):
            victim = self.running[-1] if self.running else None
            if not may_preempt or victim is None or victim is sequence:
                return False
            step.forget(victim)
            self.preempt(victim)
        return True

    def _grow(self, sequence: Sequence, tokens: int, step: Step) -> bool:
        """Take the pages for positions below `tokens`, all or none."""
        blocks = -(-tokens // self.page)
        need_full = blocks - len(sequence.full_pages)
        need_window = blocks - len(sequence.window_pages)
        if self.full.free < need_full or self.windowed.free < need_window:
            return False
        self._grow_full(sequence, blocks, step)
        for _ in range(need_window):
            page = self.windowed.take()
            assert page is not None  # counted above
            step.pages.append((True, sequence.slot, len(sequence.window_pages), page))
            sequence.window_pages.append(page)
        return True

    def _grow_full(self, sequence: Sequence, blocks: int, step: Step) -> None:
        """Take pages of the layers without a window; the caller has counted them."""
        while len(sequence.full_pages) < blocks:
            page = self.full.take()
            assert page is not None
            step.pages.append((False, sequence.slot, len(sequence.full_pages), page))
            sequence.full_pages.append(page)

    def _drop_window(self, sequence: Sequence) -> None:
        """Give windowed pages back that no coming query reaches."""
        reach = max(0, sequence.launched - self.window + 1) // self.page
        for block in range(min(reach, len(sequence.window_pages)) - 1, -1, -1):
            page = sequence.window_pages[block]
            if page is None:
                return
            self.windowed.release(page)
            sequence.window_pages[block] = None

    def _name_blocks(self, sequence: Sequence) -> None:
        """Hash the blocks whose tokens are known, and name the pages that hold them."""
        if not self.reuse:
            return
        known = len(sequence.tokens) // self.page
        for block in range(len(sequence.names), known):
            tokens = sequence.tokens[block * self.page : (block + 1) * self.page]
            sequence.names.append(block_name(sequence.parent, tokens))

    def _name_pages(self, sequence: Sequence, before: int) -> None:
        """Name the pages that the last launch has filled."""
        if not self.reuse:
            return
        self._name_blocks(sequence)
        done = min(sequence.launched // self.page, len(sequence.names))
        for block in range(min(before // self.page, done), done):
            self.full.name(sequence.full_pages[block], sequence.names[block])
            page = sequence.window_pages[block]
            if page is not None:
                self.windowed.name(page, sequence.names[block])

    # What happened.

    def launched(self, step: Step) -> list[Sequence]:
        """Account for a step on its way; returns the sequences that draw a token, in row order."""
        drawing = []
        for sequence in step.decode:
            before, sequence.launched = sequence.launched, sequence.launched + 1
            sequence.unknown += 1
            drawing.append(sequence)
            self._name_pages(sequence, before)
        for sequence, count in step.chunks:
            before, sequence.launched = sequence.launched, sequence.launched + count
            self._name_pages(sequence, before)
            if sequence.pending == 0:
                sequence.unknown += 1
                sequence.drawn = True
                drawing.append(sequence)
        return drawing

    def drew(self, sequence: Sequence, token: int, *, ends: bool) -> None:
        """A drawn token came back.

        Args:
            sequence: whose it is; may have finished since.
            token: its id.
            ends: whether it is the last one.
        """
        sequence.unknown -= 1
        if sequence.finished:
            return
        sequence.tokens.append(token)
        if sequence.running:
            block = (len(sequence.tokens) - 1) // self.page
            if len(sequence.tokens) % self.page == 0:
                self._name_pages(sequence, block * self.page)
        if ends:
            self.finish(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Let a sequence go; steps on their way may still write to its pages, harmlessly."""
        sequence.finished = True
        if sequence.running:
            self.running.remove(sequence)
            self._give_back(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def preempt(self, sequence: Sequence) -> None:
        """Take everything from a running sequence; it is read again, first in the queue."""
        assert sequence.unknown == 0, "its tokens are still on their way"
        self.running.remove(sequence)
        self._give_back(sequence)
        self.waiting.appendleft(sequence)

    def _give_back(self, sequence: Sequence) -> None:
        """Release slot and pages; last blocks first, so that prefixes are kept longest."""
        for page in reversed(sequence.full_pages):
            self.full.release(page)
        for kept in reversed(sequence.window_pages):
            if kept is not None:
                self.windowed.release(kept)
        sequence.full_pages, sequence.window_pages = [], []
        self._slots.append(sequence.slot)
        sequence.slot, sequence.launched, sequence.drawn = -1, 0, False
