"""`mcp` tools: a real MCP server, called in the loop of a response."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from gptoss_serve.errors import InvalidRequest
from gptoss_serve.mcp_client.access import McpAccess
from gptoss_serve.mcp_client.connection import McpConnection, McpServer
from gptoss_serve.mcp_client.failure import McpFailure

pytestmark = pytest.mark.mcp

Called = Callable[[str, str], str]


def names(events: list[dict[str, Any]]) -> list[str]:
    """Names of the events about remote tools; how many deltas there are is a matter of timing."""
    named = [event["type"].removeprefix("response.") for event in events if "mcp" in event["type"]]
    return [name for name, _ in itertools.groupby(named)]


def of_type(response: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [item for item in response["output"] if item["type"] == kind]


def test_tools_are_listed_and_called(ask: Any, shop: Any, called: Called, done: str) -> None:
    asker = ask(called("shop__price", '{"fruit": "pear"}'), done, mcp=shop.access)
    tool = shop.tool(server_description="A fruit shop.", headers={"x-customer": "7"})
    events, response = asyncio.run(asker.events(input="What is a pear?", tools=[tool]))
    listing, call, message = response["output"]
    assert [entry["name"] for entry in listing["tools"]] == ["price", "order", "broken", "slow"]
    assert listing["server_label"] == "shop"
    assert call["name"] == "price"
    assert call["output"] == "pear: 3 euros"
    assert call["error"] is None
    assert call["status"] == "completed"
    assert message["content"][0]["text"] == "Done."
    assert shop.calls == [("price", {"fruit": "pear"})]
    assert names(events) == [
        "mcp_list_tools.in_progress",
        "mcp_list_tools.completed",
        "mcp_call.in_progress",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.done",
        "mcp_call.completed",
    ]
    # The secret goes to the server and nowhere else.
    assert all(headers["x-customer"] == "7" for headers in shop.headers)
    assert "headers" not in response["tools"][0]
    prompt = asker.prompts[0]
    assert "About the functions named shop__*: A fruit shop." in prompt
    assert "type shop__price = (_: {" in prompt


def test_a_failing_tool_is_an_item_with_an_error(
    ask: Any, shop: Any, called: Called, done: str
) -> None:
    asker = ask(called("shop__broken", "{}"), done, mcp=shop.access)
    events, response = asyncio.run(asker.events(input="Hi", tools=[shop.tool()]))
    (call,) = of_type(response, "mcp_call")
    assert response["status"] == "completed"
    assert call["status"] == "failed"
    assert call["output"] is None
    assert call["error"]["type"] == "mcp_tool_execution_error"
    assert names(events)[-1] == "mcp_call.failed"


@pytest.mark.parametrize("arguments", ["[1]", "nonsense", '{"count": "many"}'])
def test_bad_arguments_are_said_to_the_model(
    ask: Any, shop: Any, called: Called, done: str, arguments: str
) -> None:
    asker = ask(called("shop__order", arguments), done, mcp=shop.access)
    response = asyncio.run(asker(input="Hi", tools=[shop.tool()]))
    assert of_type(response, "mcp_call")[0]["status"] == "failed"
    assert response["output"][-1]["content"][0]["text"] == "Done."
    assert shop.calls == []


def test_a_slow_server_is_not_waited_for(ask: Any, shop: Any, called: Called, done: str) -> None:
    asker = ask(called("shop__slow", "{}"), done, mcp=shop.access, mcp_seconds=1.0)
    known = [{"name": "slow", "input_schema": {"type": "object"}}]
    listing = {"type": "mcp_list_tools", "server_label": "shop", "tools": known}
    items = [listing, {"role": "user", "content": "Hi"}]
    response = asyncio.run(asker(input=items, tools=[shop.tool()]))
    (slow,) = of_type(response, "mcp_call")
    assert slow["error"]["message"] == "the MCP server shop did not answer in 1 s"
    assert response["status"] == "completed"


def test_after_a_timeout_there_is_a_new_connection(shop: Any) -> None:
    server = McpServer(label="shop", url=shop.url)

    async def talk() -> None:
        connection = McpConnection(server, shop.access, seconds=1.0)
        with pytest.raises(McpFailure, match="did not answer"):
            await connection.call("slow", {})
        connection._seconds = 60.0
        result = await connection.call("price", {"fruit": "fig"})
        assert result.content[0].text == "fig: 3 euros"
        await connection.close()
        await connection.close()

    asyncio.run(talk())


def test_whoever_goes_away_leaves_nothing_behind(shop: Any) -> None:
    async def talk() -> None:
        connection = McpConnection(McpServer(label="shop", url=shop.url), shop.access)
        asking = asyncio.create_task(connection.call("slow", {}))
        while not shop.headers:  # until it has asked
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await connection.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(talk())


def test_a_server_that_is_not_there_is_a_failed_listing(ask: Any, shop: Any, done: str) -> None:
    asker = ask(done, mcp=shop.access)
    gone = shop.tool(server_url="http://127.0.0.1:9/mcp")
    events, response = asyncio.run(asker.events(input="Hi", tools=[gone]))
    assert response["status"] == "completed"
    assert "cannot be reached" in response["output"][0]["error"]
    assert names(events) == ["mcp_list_tools.in_progress", "mcp_list_tools.failed"]


def test_the_listing_is_asked_for_once_in_a_conversation(
    ask: Any, shop: Any, called: Called, done: str
) -> None:
    price = called("shop__price", '{"fruit": "fig"}')
    asker = ask(done, price, done, done, done, mcp=shop.access)
    tools = [shop.tool(allowed_tools=["price"])]

    async def talk() -> None:
        first = await asker(input="Hi", tools=tools)
        assert [tool["name"] for tool in first["output"][0]["tools"]] == ["price"]
        by_id = await asker(input="More", tools=tools, previous_response_id=first["id"])
        assert [item["type"] for item in by_id["output"]] == ["mcp_call", "message"]
        shop.headers.clear()
        items = [*first["output"], {"role": "user", "content": "More"}]
        replayed = await asker(input=items, tools=tools, store=False)
        assert [item["type"] for item in replayed["output"]] == ["message"]
        assert shop.headers == []
        others = [shop.tool(allowed_tools=["order"])]
        changed = await asker(input="More", tools=others, previous_response_id=first["id"])
        assert [tool["name"] for tool in changed["output"][0]["tools"]] == ["order"]

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("allowed", "shown"),
    [
        (["order", "unheard"], ["order"]),
        ({"read_only": True}, ["price"]),
        ({"tool_names": ["price", "slow"], "read_only": False}, ["slow"]),
        ([], []),
    ],
)
def test_only_allowed_tools_are_known(
    ask: Any, shop: Any, done: str, allowed: Any, shown: list[str]
) -> None:
    asker = ask(done, mcp=shop.access)
    response = asyncio.run(asker(input="Hi", tools=[shop.tool(allowed_tools=allowed)]))
    assert [tool["name"] for tool in response["output"][0]["tools"]] == shown


def approval(request_id: str, approve: bool, **more: Any) -> dict[str, Any]:
    answer = {"type": "mcp_approval_response", "approval_request_id": request_id}
    return {**answer, "approve": approve, **more}


@pytest.mark.parametrize("is_stateless", [False, True])
def test_a_user_approves_a_call(
    ask: Any, shop: Any, called: Called, done: str, is_stateless: bool
) -> None:
    asker = ask(called("shop__order", '{"fruit": "kiwi", "count": 2}'), done, done, mcp=shop.access)
    tools = [shop.tool(require_approval=None)]

    async def talk() -> None:
        first = await asker(input="Order kiwis", tools=tools, store=not is_stateless)
        (request,) = of_type(first, "mcp_approval_request")
        assert (request["name"], request["server_label"]) == ("order", "shop")
        assert shop.calls == []
        items = [approval(request["id"], True)]
        before: Any = {"previous_response_id": first["id"]}
        if is_stateless:
            items, before = [{"role": "user", "content": "Go"}, *first["output"], *items], {}
        second = await asker(input=items, tools=tools, **before)
        call, message = second["output"]
        assert call["type"] == "mcp_call"
        assert call["approval_request_id"] == request["id"]
        assert call["output"] == "2 x kiwi ordered"
        assert message["content"][0]["text"] == "Done."
        assert shop.calls == [("order", {"fruit": "kiwi", "count": 2})]
        # What was run is not run again when everything is sent once more.
        if is_stateless:
            await asker(input=[*items, *second["output"]], tools=tools)
            assert len(shop.calls) == 1
            assert asker.prompts[-1].count("2 x kiwi ordered") == 1

    asyncio.run(talk())


def test_what_a_server_lists_spoils_no_response(ask: Any, shop: Any, called: Called) -> None:
    known = [
        {"name": "odd name!", "input_schema": {"$ref": "#/nowhere"}},
        {"name": "twice", "description": "First.", "input_schema": 7},
        {"name": "twice", "description": "Second.", "input_schema": {"type": 5}},
    ]
    listing = {"type": "mcp_list_tools", "server_label": "shop", "tools": known}
    asker = ask(mcp=shop.access)
    items = [listing, {"role": "user", "content": "Hi"}]
    response = asyncio.run(asker(input=items, tools=[shop.tool()]))
    assert response["status"] == "completed"
    assert "type shop__odd_name_ = () => any;" in asker.prompts[0]
    assert asker.prompts[0].count("type shop__twice") == 1
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(asker(input=[{**listing, "tools": [{"x": 1}]}], tools=[shop.tool()]))
    assert refused.value.param == "input[0].tools[0]"


def test_a_user_refuses_a_call(ask: Any, shop: Any, called: Called, done: str) -> None:
    asker = ask(called("shop__order", '{"fruit": "kiwi"}'), done, mcp=shop.access)
    tools = [shop.tool(require_approval="always")]

    async def talk() -> None:
        first = await asker(input="Order kiwis", tools=tools)
        refusal = approval(first["output"][-1]["id"], False, reason="too dear")
        again = {"previous_response_id": first["id"], "tools": tools}
        second = await asker(input=[refusal], **again)
        assert [item["type"] for item in second["output"]] == ["message"]
        assert "did not allow this call: too dear" in asker.prompts[-1]
        assert shop.calls == []
        for items in ([refusal, refusal], [approval("mcpr_0", True)]):
            with pytest.raises(InvalidRequest, match="approval request"):
                await asker(input=items, **again)
        answer = approval(first["output"][-1]["id"], True)
        with pytest.raises(InvalidRequest, match="not among the tools"):
            await asker(input=[answer], previous_response_id=first["id"])

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("rule", "asks"),
    [
        ({"never": {"tool_names": ["order"]}}, False),
        ({"never": {"read_only": True}}, True),
        ({"always": {"tool_names": ["order"]}, "never": {"read_only": False}}, True),
        ({}, True),
    ],
)
def test_rules_of_approval(
    ask: Any, shop: Any, called: Called, done: str, rule: Any, asks: bool
) -> None:
    asker = ask(called("shop__order", '{"fruit": "kiwi"}'), done, mcp=shop.access)
    response = asyncio.run(asker(input="Hi", tools=[shop.tool(require_approval=rule)]))
    assert bool(of_type(response, "mcp_approval_request")) is asks
    assert bool(shop.calls) is not asks


def test_a_call_that_was_cut_short_is_put_to_nobody(ask: Any, shop: Any, called: Called) -> None:
    asker = ask(called("shop__order", '{"fruit": "' + "kiwi " * 50), mcp=shop.access)
    tools = [shop.tool(require_approval="always")]
    response = asyncio.run(asker(input="Hi", tools=tools, max_output_tokens=30))
    assert response["status"] == "incomplete"
    assert of_type(response, "mcp_approval_request") == []
    assert of_type(response, "mcp_call")[0]["status"] == "incomplete"


def test_calls_are_counted(ask: Any, shop: Any, called: Called, done: str) -> None:
    price = called("shop__price", '{"fruit": "fig"}')
    for replies, statuses in (
        ((price, price, done), ["completed", "failed"]),
        ((price, price, price), ["completed", "failed", "incomplete"]),
    ):
        shop.calls.clear()
        asker = ask(*replies, mcp=shop.access)
        response = asyncio.run(asker(input="Hi", tools=[shop.tool()], max_tool_calls=1))
        assert len(shop.calls) == 1
        calls = of_type(response, "mcp_call")
        assert [call["status"] for call in calls] == statuses
        assert "The limit of tool calls is reached" in calls[1]["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"connector_id": "connector_gmail"}, "tools[0].connector_id"),
        ({"tunnel_id": "t"}, "tools[0].tunnel_id"),
        ({"defer_loading": True}, "tools[0].defer_loading"),
        ({"server_url": None}, "tools[0].server_url"),
        ({"server_url": "file:///etc/passwd"}, "tools[0].server_url"),
        ({"server_url": "http://user:pw@127.0.0.1/mcp"}, "tools[0].server_url"),
        ({"server_url": "http://169.254.169.254/mcp"}, "tools[0].server_url"),
        ({"server_url": "http://localhost/mcp"}, "tools[0].server_url"),
        ({"server_url": "http://127.0.0.1:port/"}, "tools[0].server_url"),
        ({"server_label": "a b"}, "tools[0].server_label"),
        ({"headers": {"x": "a\r\nb"}}, "tools[0].headers"),
        ({"headers": {"x": " secret"}}, "tools[0].headers"),
        ({"headers": {"a b": "x"}}, "tools[0].headers"),
        ({"headers": {"": "x"}}, "tools[0].headers"),
        ({"headers": {"HOST": "inside.org"}}, "tools[0].headers"),
        ({"headers": {"Content-Length": "3"}}, "tools[0].headers"),
        ({"headers": {"transfer-encoding": "chunked"}}, "tools[0].headers"),
        ({"authorization": "token "}, "tools[0].authorization"),
        ({"authorization": ""}, "tools[0].authorization"),
        ({"headers": {"Authorization": "x"}, "authorization": "y"}, "tools[0].authorization"),
        ({"require_approval": "sometimes"}, "tools[0].require_approval"),
        ({"frobnicate": 1}, "tools[0].frobnicate"),
    ],
)
def test_mistakes_are_named(ask: Any, shop: Any, fields: Any, param: str) -> None:
    asker = ask(mcp=shop.access)
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(asker(input="Hi", tools=[shop.tool(**fields)]))
    assert refused.value.param == param
    assert "secret" not in str(refused.value)
    assert shop.headers == []


def test_nobody_is_asked_unless_the_operator_says_so(ask: Any, shop: Any) -> None:
    for access in (McpAccess(), McpAccess.parse(["example.org", "127.0.0.1:1"])):
        with pytest.raises(InvalidRequest, match="--mcp-allow"):
            asyncio.run(ask(mcp=access)(input="Hi", tools=[shop.tool()]))
    # `any` is any public host, which loopback is not.
    asker = ask("<|channel|>final<|message|>Hm.<|return|>", mcp=McpAccess.parse(["any"]))
    response = asyncio.run(asker(input="Hi", tools=[shop.tool()]))
    assert "not on the public internet" in response["output"][0]["error"]
    assert shop.headers == []


def test_a_forced_call_is_forced_once(
    ask: Any, shop: Any, called: Called, done: str, obedient: Any
) -> None:
    replies: list[Any] = [called("shop__price", '{"fruit": "fig"}'), done]
    choices: list[Any] = [
        "required",
        {"type": "mcp", "server_label": "shop"},
        {"type": "mcp", "server_label": "shop", "name": "price"},
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "mcp", "server_label": "shop", "name": "price"}],
        },
    ]
    for choice in choices:
        asker = ask(engine=obedient(replies), mcp=shop.access)
        response = asyncio.run(asker(input="Hi", tools=[shop.tool()], tool_choice=choice))
        assert response["tool_choice"] == choice
        assert [item["type"] for item in response["output"]][1:] == ["mcp_call", "message"]


def test_choices_that_name_nothing(ask: Any, shop: Any, done: str) -> None:
    asker = ask(done, mcp=shop.access)
    choice = {"type": "mcp", "server_label": "bank"}
    with pytest.raises(InvalidRequest, match="which is not among the tools"):
        asyncio.run(asker(input="Hi", tools=[shop.tool()], tool_choice=choice))
    # The response has begun when the names of tools are known.
    choice = {"type": "mcp", "server_label": "shop", "name": "unheard"}
    response = asyncio.run(asker(input="Hi", tools=[shop.tool()], tool_choice=choice))
    assert response["status"] == "failed"
    assert "shop.unheard" in response["error"]["message"]
