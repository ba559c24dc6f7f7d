"""Fair turns: order, bounds, cancellation at every moment, and the drain."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_serve.errors import Overloaded, RateLimited
from gptoss_serve.limits import Admission


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Guest:
    """A request that holds its turn until told to leave."""

    def __init__(self, admission: Admission, client: str, order: list[str]) -> None:
        self.client = client
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(admission, order))

    async def _visit(self, admission: Admission, order: list[str]) -> None:
        async with admission.slot(self.client):
            order.append(self.client)
            await self.leave.wait()


def test_a_greedy_client_does_not_starve_another() -> None:
    async def run() -> None:
        admission, order = Admission(running=2, waiting=200), list[str]()
        guests = [Guest(admission, "greedy", order) for _ in range(100)]
        await settle()
        guests += [Guest(admission, "modest", order) for _ in range(2)]
        await settle()
        assert (admission.running, admission.waiting, admission.clients_waiting) == (2, 100, 2)
        guests[0].leave.set()  # the very next free place is the modest client's
        await settle()
        assert order == ["greedy", "greedy", "modest"]
        for guest in guests:
            guest.leave.set()
        await asyncio.gather(*(guest.task for guest in guests))
        assert admission.idle

    asyncio.run(run())


def test_equals_take_turns() -> None:
    async def run() -> None:
        admission, order = Admission(running=1, waiting=50), list[str]()
        guests = [Guest(admission, name, order) for name in "xaaabbbbcc"]
        await settle()
        for guest in reversed(guests):
            guest.leave.set()
        await asyncio.gather(*(guest.task for guest in guests))
        assert "".join(order) == "xabcabcabb"

    asyncio.run(run())


def test_a_full_queue_makes_room_at_the_expense_of_the_greediest() -> None:
    async def run() -> None:
        admission, order = Admission(running=1, waiting=4), list[str]()
        greedy = [Guest(admission, "greedy", order) for _ in range(5)]
        await settle()
        modest = [Guest(admission, "modest", order) for _ in range(3)]
        await settle()
        for refused in (greedy[4], greedy[3], modest[2]):
            with pytest.raises(RateLimited):
                await refused.task
        kept = [*greedy[:3], *modest[:2]]
        for guest in kept:
            guest.leave.set()
        await asyncio.gather(*(guest.task for guest in kept))
        assert Counter(order) == {"greedy": 3, "modest": 2}

    asyncio.run(run())


def test_nobody_is_let_in_while_draining() -> None:
    async def run() -> None:
        admission, order = Admission(running=1, waiting=1), list[str]()
        guests = [Guest(admission, "a", order), Guest(admission, "a", order)]
        await settle()
        assert not await admission.drain(0.0)
        with pytest.raises(Overloaded):
            async with admission.slot("b"):
                pass
        guests[0].leave.set()
        guests[1].leave.set()
        await asyncio.gather(*(guest.task for guest in guests))
        assert admission.idle
        assert await admission.drain(60.0)

    asyncio.run(run())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "leave", "cancel", "step"]),
        st.integers(0, 30),
        st.sampled_from("abc"),
    ),
    max_size=40,
)


@given(STEPS, st.integers(1, 3), st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_no_place_is_ever_lost_or_given_twice(steps: Any, running: int, waiting: int) -> None:
    async def run() -> None:
        admission, order = Admission(running=running, waiting=waiting), list[str]()
        guests: list[Guest] = []
        for action, number, client in steps:
            if action == "come":
                guests.append(Guest(admission, client, order))
            elif action == "step":
                await asyncio.sleep(0)
            elif guests:
                guest = guests[number % len(guests)]
                guest.leave.set() if action == "leave" else guest.task.cancel()
            assert 0 <= admission.running <= running
            assert 0 <= admission.waiting <= waiting
        for guest in guests:
            guest.leave.set()
        ends = await asyncio.gather(*(g.task for g in guests), return_exceptions=True)
        assert all(e is None or isinstance(e, RateLimited | asyncio.CancelledError) for e in ends)
        assert (admission.running, admission.waiting, admission.clients_waiting) == (0, 0, 0)
        assert admission.idle

    asyncio.run(run())
