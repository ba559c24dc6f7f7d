"""Whatever a model writes into calls of these tools, the items are typed and add up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss_serve import Toolbox
from gptoss_serve.browsing import ServedBrowser
from gptoss_tools.browser.backends.protocol import SearchResult
from gptoss_tools.browser.page import Page

pytestmark = pytest.mark.mcp

TEXT = st.text(max_size=30) | st.sampled_from(
    [
        "{}",
        '{"commands": ["ls", "pwd"]}',
        '{"command": ["ls"], "timeout_ms": -1}',
        '{"fruit": "fig"}',
        '{"query": "tea"}',
        '{"id": 0}',
        "*** Begin Patch\n*** Add File: a\n+x\n*** Delete File: b\n*** End Patch",
        "*** Update File: a\n*** Move to: b\n",
    ]
)
NAMES = [
    "functions.shell",
    "functions.shell_2",
    "functions.apply_patch",
    "functions.shop__price",
    "functions.shop__order",
    "shop__broken",
    "browser.search",
    "browser.open",
    "functions.nobody",
]
CALLS = st.lists(st.tuples(st.sampled_from(NAMES), TEXT), min_size=1, max_size=3)


class Pages:
    """Finds one page and opens any."""

    source = "pages"

    async def search(self, query: str, *, topn: int) -> list[SearchResult]:
        return [SearchResult(title="t", url="https://a.org", summary="s")]

    async def fetch(self, url: str) -> Page:
        return Page(url, "t", "text")


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=CALLS, limit=st.none() | st.integers(1, 60), stored=st.booleans())
def test_any_call_is_typed_and_adds_up(
    ask: Any, shop: Any, calls: list[tuple[str, str]], limit: int | None, stored: bool
) -> None:
    replies = [
        f"<|channel|>commentary to={name} code<|message|>{text.replace('<|', '')}<|call|>"
        for name, text in calls
    ]
    done = "<|channel|>final<|message|>Done.<|return|>"
    toolbox = Toolbox({"browser": lambda setup: ServedBrowser(Pages(), setup)})
    asker = ask(*replies, done, toolbox=toolbox, mcp=shop.access)
    approval = {"never": {"tool_names": ["price", "broken"]}}
    tools = [
        {"type": "shell"},
        {"type": "local_shell"},
        {"type": "apply_patch"},
        {"type": "web_search"},
        shop.tool(require_approval=approval),
    ]

    async def talk() -> None:
        # The asker checks every event and the response; then everything goes back in.
        first = await asker(input="Hi", tools=tools, max_output_tokens=limit, store=stored)
        items: list[Any] = [{"role": "user", "content": "Hi"}, *first["output"]]
        items += [answer for item in first["output"] if (answer := answer_to(item)) is not None]
        if not stored:
            await asker(input=items, tools=tools)
            return
        again = {"tools": tools, "previous_response_id": first["id"]}
        second = await asker(input=items[1 + len(first["output"]) :] or "On", **again)
        page = await asker.service.input_items(second["id"], order="asc", after=None, limit=100)
        asker.conformance.item_list(page)

    asyncio.run(talk())


def answer_to(item: dict[str, Any]) -> dict[str, Any] | None:
    """What a client would send for a call."""
    match item["type"]:
        case "shell_call":
            ran = {"stdout": "x", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
            return {"type": "shell_call_output", "call_id": item["call_id"], "output": [ran]}
        case "local_shell_call":
            return {"type": "local_shell_call_output", "id": item["call_id"], "output": "x"}
        case "apply_patch_call":
            kind = "apply_patch_call_output"
            return {"type": kind, "call_id": item["call_id"], "status": "completed"}
        case "mcp_approval_request":
            kind = "mcp_approval_response"
            return {"type": kind, "approval_request_id": item["id"], "approve": True}
    return None


def test_answers_are_listed_as_whole_items(
    ask: Any, shop: Any, called: Callable[[str, str], str], done: str
) -> None:
    patch = "*** Begin Patch\n*** Delete File: b\n*** End Patch"
    calls = {
        "shell": '{"commands": ["ls"]}',
        "shell_2": '{"command": ["ls"]}',
        "apply_patch": patch,
        "shop__order": '{"fruit": "fig"}',
    }
    kinds = ("shell", "local_shell", "apply_patch")
    tools = [*({"type": kind} for kind in kinds), shop.tool(require_approval="always")]

    async def talk() -> None:
        for name, text in calls.items():
            asker = ask(called(name, text), done, mcp=shop.access)
            first = await asker(input="Hi", tools=tools)
            answer = answer_to(first["output"][-1])
            assert answer is not None
            again = {"tools": tools, "previous_response_id": first["id"]}
            second = await asker(input=[answer], **again)
            assert second["output"][-1]["content"][0]["text"] == "Done."
            page = await asker.service.input_items(second["id"], order="asc", after=None, limit=9)
            asker.conformance.item_list(page)
            assert page["data"][0]["type"] == answer["type"]

    asyncio.run(talk())
