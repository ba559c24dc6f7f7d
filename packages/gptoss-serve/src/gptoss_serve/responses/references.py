"""`item_reference`: items that a client names instead of sending them, found in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptoss_serve.errors import InvalidRequest, NotFound
from gptoss_serve.responses.parts import Json
from gptoss_serve.responses.store import ResponseStore


async def without_references(
    items: Sequence[Mapping[str, Any]], store: ResponseStore | None, *, owner: str = ""
) -> list[Json]:
    """Put the items themselves where they are only named.

    Args:
        items: of the input.
        store: holds the items that are named.
        owner: who asks, and may name only what is theirs or everybody's.

    Raises:
        InvalidRequest: a reference without an id, or no store to look into.
        NotFound: no kept response has such an item.
    """
    whole: list[Json] = []
    for position, item in enumerate(items):
        if _is_reference(item):
            whole.append(await _found(item, position, store, owner=owner))
        else:
            whole.append(dict(item))
    return whole


def _is_reference(item: Mapping[str, Any]) -> bool:
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and set(item) <= {"id", "type"} and bool(item))


async def _found(
    item: Mapping[str, Any], position: int, store: ResponseStore | None, *, owner: str
) -> Json:
    where, item_id = f"input[{position}].id", item.get("id")
    if not isinstance(item_id, str) or not item_id:
        raise InvalidRequest(f"{where} must be the id of an item", param=where)
    if store is None:
        raise InvalidRequest(
            "item_reference needs a store and this server has none; send the item itself",
            param=where,
        )
    found = await store.item(item_id, owner=owner)
    if found is None:
        raise NotFound(
            f"{where}: no kept response has an item {item_id!r}; send the item itself",
            param=where,
            code="item_not_found",
        )
    return found
