"""Server-sent events as they are read: bytes in, the data of each event out.

Only CR LF and LF end a line here. Text that is split as Python splits lines would break at U+2028
and others, which JSON may hold as they are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from gptoss_serve.errors import UpstreamError

MOST_BYTES = 64 * 2**20  # of one event: a whole response with all its items


class EventTooLong(UpstreamError):
    """An event has no end in sight."""

    def __init__(self) -> None:
        super().__init__(f"the server sent more than {MOST_BYTES} bytes at once")


async def event_data(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """Give the data of each event, up to `[DONE]`, which OpenAI's APIs end with.

    Args:
        chunks: the body, cut anywhere.

    Raises:
        EventTooLong: an event of more than `MOST_BYTES`.
    """
    held: list[str] = []
    size = 0
    async for line in _lines(chunks):
        if line.startswith("data:"):
            size += len(line)
            if size > MOST_BYTES:
                raise EventTooLong
            held.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and held:
            data, held, size = "\n".join(held), [], 0
            if data.strip() == "[DONE]":
                return
            yield data
    # A server that ends without the last empty line meant its last event all the same.
    if held and held != ["[DONE]"]:
        yield "\n".join(held)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    rest = bytearray()
    async for chunk in chunks:
        first, *more = chunk.split(b"\n")
        rest += first
        if len(rest) > MOST_BYTES:
            raise EventTooLong
        for next_line in more:
            yield rest.removesuffix(b"\r").decode("utf-8", "replace")
            rest = bytearray(next_line)
    if rest:
        yield rest.decode("utf-8", "replace")
