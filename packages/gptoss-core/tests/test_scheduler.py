"""The scheduler's decisions; no model is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_core.request import Request
from gptoss_core.scheduler import SCORING_CHUNK, Scheduler
from gptoss_harmony.engine import Prompt, Sampling
from gptoss_harmony.generation import TokenStream


def make_request(length: int, *, computed: int = 0, answer: int = 0, score: bool = False) -> Any:
    request = Request(
        Prompt(tuple(range(length))),
        Sampling(prompt_logprobs=0 if score else None),
        constraint=None,
        stream=TokenStream(),
        stop_tokens=frozenset(),
        limit=10_000,
    )
    request.tokens += [0] * answer
    request.cache = SimpleNamespace(length=computed)  # type: ignore[assignment]
    return request


def filled(requests: list[Any], **options: Any) -> Scheduler:
    scheduler = Scheduler(**{"max_batch": 99, "chunk": 512, **options})
    for request in requests:
        scheduler.add(request)
    assert scheduler.admit(lambda _: True) == requests
    return scheduler


def counts(scheduler: Scheduler) -> list[list[int]]:
    return [[count for _, count in work.parts] for work in scheduler.plan()]


def test_the_worked_example_of_the_docstring() -> None:
    answering = [make_request(9, computed=9, answer=1) for _ in range(2)]
    reading = [make_request(40), make_request(9000)]
    assert counts(filled([*answering, *reading])) == [[1, 1, 40, 470]]


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=12),
    decoding=st.integers(0, 5),
    chunk=st.integers(1, 300),
)
def test_everyone_moves_and_the_budget_holds(lengths, decoding, chunk) -> None:
    requests = [make_request(5, computed=5, answer=1) for _ in range(decoding)]
    requests += [make_request(length) for length in lengths]
    (given_out,) = counts(filled(requests, chunk=chunk))
    assert len(given_out) == len(requests)
    for request, count in zip(requests, given_out, strict=True):
        assert 1 <= count <= request.pending
    assert sum(given_out) <= max(chunk, len(requests))
    if sum(request.pending for request in requests) >= chunk >= len(requests):
        assert sum(given_out) == chunk, "tokens of the budget were left over"


def test_scoring_requests_get_short_passes_of_their_own() -> None:
    scoring, plain = make_request(300, score=True), make_request(10)
    together, alone = filled([scoring, plain]).plan()
    assert [count for _, count in together.parts] == [10]
    assert not together.every_position
    assert alone.parts == ((scoring, SCORING_CHUNK),)
    assert alone.every_position


def test_deterministic_passes_depend_on_the_request_alone() -> None:
    """Chunks end at multiples of the chunk, and answers are taken one token at a time."""
    requests = [
        make_request(100),
        make_request(100, computed=40),
        make_request(100, computed=64),
        make_request(100, computed=100, answer=9),
    ]
    assert counts(filled(requests, chunk=64, deterministic=True)) == [[64], [24], [36], [1]]


def test_admission_is_in_order_and_waits_for_room() -> None:
    first, large, small = make_request(5), make_request(900), make_request(5)
    scheduler = Scheduler(max_batch=2, chunk=64)
    for request in (first, large, small):
        scheduler.add(request)
    assert scheduler.admit(lambda request: len(request.tokens) < 100) == [first]
    assert list(scheduler.waiting) == [large, small], "a small request overtook a large one"
    scheduler.remove(first)
    assert scheduler.admit(lambda _: False) == [large], "alone, a request need not fit"
    assert scheduler.admit(lambda _: True) == [small]
    scheduler.remove(large)
    scheduler.remove(small)
    assert not scheduler.busy


def test_preempted_requests_return_before_those_that_wait() -> None:
    running = [make_request(5) for _ in range(3)]
    scheduler = filled(running, max_batch=3)
    waiting = make_request(5)
    scheduler.add(waiting)
    assert scheduler.preempt() is running[2]
    assert scheduler.preempt() is running[1]
    assert scheduler.preempt() is None, "the last one must go on"
    assert list(scheduler.waiting) == [*running[1:], waiting]


@pytest.mark.parametrize("width", [0, 1, 2])
def test_a_narrowed_batch_widens_as_requests_end(width: int) -> None:
    scheduler = filled([make_request(5) for _ in range(4)], max_batch=4)
    scheduler.narrow(width)
    scheduler.requeue(list(scheduler.running))
    for expected in range(max(1, width), 5):
        scheduler.admit(lambda _: True)
        assert len(scheduler.running) == min(expected, 4)
        scheduler.remove(scheduler.running[0])
        scheduler.add(make_request(5))
