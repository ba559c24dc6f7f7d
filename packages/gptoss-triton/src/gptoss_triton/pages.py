"""Which page of a pool holds what: allocation, sharing between sequences, and reuse by content.

A page in use has one or more owners. A page whose 64 tokens are all known may carry a name, the
hash of those tokens and everything before them; when its last owner leaves, it keeps its content
and its name and goes to the back of a queue, from whose front pages are taken when nothing else is
free. So old prefixes stay as long as there is room, and finding one costs a look-up.

Pure Python, and nothing here knows what a page contains.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence


class PagePool:
    """Pages 0 to count - 1.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._owners = [0] * count
        self._names: list[bytes | None] = [None] * count
        self._by_name: dict[bytes, int] = {}
        self._empty = list(range(count - 1, -1, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()  # without owners, content still known

    @property
    def free(self) -> int:
        """Pages that can be taken now."""
        return len(self._empty) + len(self._kept)

    @property
    def used(self) -> int:
        """Pages with an owner."""
        return self.count - self.free

    def take(self) -> int | None:
        """Give out a page with one owner and no name; None if all are in use."""
        if self._empty:
            page = self._empty.pop()
        elif self._kept:
            page, _ = self._kept.popitem(last=False)
            self._forget(page)
        else:
            return None
        self._owners[page] = 1
        return page

    def release(self, page: int) -> None:
        """Take one owner off a page."""
        assert self._owners[page] > 0, f"page {page} has no owner"
        self._owners[page] -= 1
        if self._owners[page]:
            return
        if self._names[page] is None:
            self._empty.append(page)
        else:
            self._kept[page] = None

    def find(self, name: bytes) -> int | None:
        """The page of that content, without becoming its owner."""
        return self._by_name.get(name)

    def share(self, page: int) -> int:
        """Become an owner of a named page; returns it."""
        assert self._names[page] is not None, f"page {page} has no name"
        if self._owners[page] == 0:
            del self._kept[page]
        self._owners[page] += 1
        return page

    def name(self, page: int, name: bytes) -> None:
        """Say what a full page contains; the first page of a content keeps the name."""
        if self._names[page] is None and name not in self._by_name:
            self._names[page] = name
            self._by_name[name] = page

    def _forget(self, page: int) -> None:
        name = self._names[page]
        if name is not None:
            del self._by_name[name]
            self._names[page] = None


def block_name(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Name a block by its tokens and by the name of what comes before it.

    Args:
        parent: the previous block's name; for the first block the caller's salt.
        tokens: of the block.
    """
    digest = hashlib.blake2b(parent, digest_size=16)
    digest.update(array("i", tokens).tobytes())
    return digest.digest()


def salt_name(salt: str) -> bytes:
    """What stands before the first block of requests that share a salt."""
    return hashlib.blake2b(salt.encode(), digest_size=16).digest()
