"""The scheduler on a pretend GPU that notices every wrong page.

A position's key is the hash of all tokens up to it. The pretend GPU follows page tables as the
kernels do, checks every key that attention would read, and derives the next token from the newest
key: so an answer depends on nothing but its prompt, however it was batched, preempted or cached.
"""

import random
from collections import deque

import pytest

from gptoss_triton.pages import PagePool
from gptoss_triton.scheduler import Scheduler
from gptoss_triton.sequence import Sequence

PAGE, WINDOW, VOCABULARY = 4, 6, 50


def fold(key, token):
    return hash((key, token))


def next_token(key):
    return key % VOCABULARY


def answer(prompt, count, salt=""):
    """What any correct engine says."""
    key = 0
    for token in prompt:
        key = fold(key, token)
    out = []
    for _ in range(count):
        out.append(next_token(key))
        key = fold(key, out[-1])
    return out


class PretendGpu:
    """Executes steps in order, one behind the scheduler."""

    def __init__(self):
        self.tables = {}  # (windowed, slot, block) -> page
        self.keys = {}  # (windowed, page, offset) -> key
        self.newest = {}  # slot -> token

    def put(self, slot, position, key):
        for windowed in (False, True):
            page = self.tables[windowed, slot, position // PAGE]
            self.keys[windowed, page, position % PAGE] = key

    def key(self, windowed, slot, position):
        return self.keys[windowed, self.tables[windowed, slot, position // PAGE], position % PAGE]

    def compute(self, slot, position, token):
        before = self.key(False, slot, position - 1) if position else 0
        key = fold(before, token)
        self.put(slot, position, key)
        for reach in range(max(0, position - WINDOW + 1), position):
            assert self.key(True, slot, reach) == self.key(False, slot, reach)
        return key

    def run(self, step, describe):
        """Apply a step whose numbers were taken down when it was launched."""
        assert len({change[:3] for change in step.pages}) == len(step.pages)
        for windowed, slot, block, page in step.pages:
            self.tables[windowed, slot, block] = page
        for slot, position, tokens in describe:
            tokens = [self.newest[slot]] if tokens is None else tokens
            for offset, token in enumerate(tokens):
                key = self.compute(slot, position + offset, token)
            self.newest[slot] = next_token(key)


class Harness:
    """Scheduler and GPU, `ahead` steps apart."""

    def __init__(self, *, full, windowed, slots=6, budget=24, ahead=1, **options):
        self.full, self.windowed = PagePool(full), PagePool(windowed)
        self.scheduler = Scheduler(
            self.full,
            self.windowed,
            page=PAGE,
            window=WINDOW,
            slots=slots,
            budget=budget,
            **options,
        )
        self.gpu = PretendGpu()
        self.flying = deque()
        self.ahead = ahead
        self.preempted = 0
        self.steps = 0

    def launch(self):
        step = self.scheduler.plan(may_preempt=not self.flying)
        if step is None:
            return False
        self.preempted += step.crowded
        work = len(step.decode) + sum(count for _, count in step.chunks)
        assert 0 < work <= self.scheduler.budget
        assert not {s.number for s in step.decode} & {s.number for s, _ in step.chunks}
        describe = [(s.slot, s.launched, None) for s in step.decode]
        describe += [
            (s.slot, s.launched, s.tokens[s.launched : s.launched + count])
            for s, count in step.chunks
        ]
        drawing = [(s, s.slot) for s in self.scheduler.launched(step)]
        self.gpu.run(step, describe)
        self.flying.append([(s, self.gpu.newest[slot]) for s, slot in drawing])
        self.steps += 1
        return True

    def collect(self):
        for sequence, token in self.flying.popleft():
            ends = len(sequence.tokens) + 1 >= sequence.limit
            self.scheduler.drew(sequence, token, ends=ends)

    def turn(self):
        """Launch if possible, then collect what is due."""
        launched = self.launch()
        if self.flying and (len(self.flying) > self.ahead or not launched):
            self.collect()
        return launched or bool(self.flying)

    def finish(self):
        idle = 0
        while self.scheduler.busy or self.flying:
            idle = 0 if self.turn() else idle + 1
            assert idle < 3, "nothing moves"

    def assert_empty(self):
        assert self.full.used == self.windowed.used == 0
        assert len(self.scheduler._slots) == len(set(self.scheduler._slots)) == 6


def make(number, prompt, count, salt=""):
    return Sequence(
        number=number,
        tokens=list(prompt),
        prompt=len(prompt),
        limit=len(prompt) + count,
        salt=salt,
    )


@pytest.mark.parametrize("reserve", [False, True])
@pytest.mark.parametrize("ahead", [0, 1])
def test_answers_do_not_depend_on_batching_or_preemption(ahead, reserve):
    source = random.Random(ahead)
    harness = Harness(full=24, windowed=24, ahead=ahead, reserve=reserve, reuse=not reserve)
    sequences = []
    for number in range(40):
        prompt = [source.randrange(VOCABULARY) for _ in range(source.randrange(1, 40))]
        sequences.append(make(number, prompt, source.randrange(1, 30)))
        harness.scheduler.add(sequences[-1])
    harness.finish()
    for sequence in sequences:
        wanted = answer(sequence.tokens[: sequence.prompt], sequence.limit - sequence.prompt)
        assert sequence.tokens[sequence.prompt :] == wanted
    assert bool(harness.preempted) != reserve, "the pool was meant to be too small"
    harness.assert_empty()


def test_a_second_turn_reuses_the_first():
    salt = "user"
    harness = Harness(full=64, windowed=64)
    prompt = list(range(30))
    first = make(0, prompt, 9, salt)
    harness.scheduler.add(first)
    harness.finish()
    again = make(1, [*first.tokens, 1, 2, 3], 5, salt)
    stranger = make(2, [*first.tokens, 1, 2, 3], 5, "other")
    short = make(3, prompt[:17], 5, salt)
    for sequence in (again, stranger, short):
        harness.scheduler.add(sequence)
        harness.finish()
        wanted = answer(sequence.tokens[: sequence.prompt], 5)
        assert sequence.tokens[sequence.prompt :] == wanted
    # The newest token of an answer is never computed; everything before it is there.
    assert again.cached == (len(first.tokens) - 1) // PAGE * PAGE
    assert stranger.cached == 0
    assert short.cached == 16
    harness.assert_empty()


def test_windowed_layers_hold_few_pages_at_any_length():
    harness = Harness(full=200, windowed=12, budget=8)
    sequence = make(0, list(range(40)), 400)
    harness.scheduler.add(sequence)
    most = 0
    while harness.scheduler.busy or harness.flying:
        harness.turn()
        most = max(most, harness.windowed.used)
    assert most <= -(-(8 + WINDOW) // PAGE) + 1


def test_twenty_thousand_random_arrivals_and_cancels_leak_nothing_and_starve_nobody():
    source = random.Random(7)
    harness = Harness(full=40, windowed=40, slots=6, budget=24)
    shared = [source.randrange(VOCABULARY) for _ in range(12)]
    alive, born, longest_wait, number = {}, {}, 0, 0
    while number < 20_000 or harness.scheduler.busy or harness.flying:
        while number < 20_000 and len(harness.scheduler.waiting) < 12:
            prompt = shared[: source.randrange(13)]
            prompt = prompt + [source.randrange(VOCABULARY) for _ in range(source.randrange(1, 9))]
            sequence = make(number, prompt, source.randrange(1, 8), source.choice(("", "a")))
            alive[number], born[number] = sequence, harness.steps
            harness.scheduler.add(sequence)
            number += 1
        moved = harness.turn()
        assert moved or not harness.scheduler.busy
        if source.random() < 0.2 and alive:
            victim = alive[source.choice(list(alive)[:30])]
            harness.scheduler.finish(victim)
        for key in [key for key, sequence in alive.items() if sequence.finished]:
            sequence = alive.pop(key)
            longest_wait = max(longest_wait, harness.steps - born.pop(key))
            said = sequence.tokens[sequence.prompt :]
            assert said == answer(sequence.tokens[: sequence.prompt], len(said))
    harness.assert_empty()
    assert not alive
    # 18 requests before it, at most 8 steps each alone: far above what fairness gives.
    assert longest_wait < 400


def test_fits_tells_what_could_ever_run():
    scheduler = Harness(full=10, windowed=10).scheduler
    assert scheduler.fits(10 * PAGE)
    assert not scheduler.fits(10 * PAGE + 1)
