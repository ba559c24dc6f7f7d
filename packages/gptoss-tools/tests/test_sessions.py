"""Sessions under load: one tool for calls that arrive together, none closed under its user."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from gptoss_tools.sessions import Sessions


@dataclass
class Slow:
    """A tool that takes a while to make and to close."""

    closed: bool = False
    made: float = field(default_factory=lambda: time.sleep(0.02) or 0.0)

    def close(self) -> None:
        self.closed = True
        time.sleep(0.01)


def sessions(most: int = 8) -> tuple[Sessions, list[Slow]]:
    made: list[Slow] = []

    def make() -> Any:
        tool = Slow()
        made.append(tool)
        return tool

    return Sessions(make, most=most), made


def test_calls_that_arrive_together_share_one_tool() -> None:
    kept, made = sessions()

    async def use() -> Any:
        async with kept.lend("a") as tool:
            return tool

    async def main() -> list[Any]:
        return await asyncio.gather(*(use() for _ in range(5)))

    used = asyncio.run(main())
    assert len(made) == 1
    assert all(tool is made[0] for tool in used)
    kept.close()
    assert made[0].closed


def test_no_session_is_closed_under_a_call_and_none_leaks() -> None:
    kept, made = sessions(most=2)

    async def use(key: str) -> None:
        async with kept.lend(key) as tool:
            await asyncio.sleep(0.001)
            assert not tool.closed  # type: ignore[attr-defined]

    async def main() -> None:
        await asyncio.gather(*(use(str(number % 7)) for number in range(40)))

    asyncio.run(main())
    assert sum(not tool.closed for tool in made) <= 2
    kept.close()
    assert all(tool.closed for tool in made)


def test_a_tool_that_cannot_be_made_is_tried_again() -> None:
    tries = iter([RuntimeError("no jail"), None])

    def make() -> Any:
        if error := next(tries):
            raise error
        return Slow()

    kept = Sessions(make, most=1)

    async def use() -> bool:
        try:
            async with kept.lend("a") as tool:
                return isinstance(tool, Slow)
        except RuntimeError:
            return False

    assert asyncio.run(use()) is False
    assert asyncio.run(use()) is True
