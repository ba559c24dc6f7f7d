"""Server-sent events as they are read: bytes in, the data of each event out.

Only CR LF and LF end a line here. Text that is split as Python splits lines would break at U+2028
and others, which JSON may hold as they are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator


async def event_data(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """Give the data of each event, up to `[DONE]`, which OpenAI's APIs end with.

    Args:
        chunks: the body, cut anywhere.
    """
    held: list[str] = []
    async for line in _lines(chunks):
        if line.startswith("data:"):
            held.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and held:
            data, held = "\n".join(held), []
            if data.strip() == "[DONE]":
                return
            yield data
    # A server that ends without the last empty line meant its last event all the same.
    if held and held != ["[DONE]"]:
        yield "\n".join(held)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")
