"""`code_interpreter`: one container for a conversation, and none for anybody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import httpx
import pytest
from openai_harmony import ToolNamespaceConfig

from gptoss_harmony.errors import HarmonyError
from gptoss_harmony.testing import require
from gptoss_harmony.tool import ToolReply
from gptoss_serve import ServerSettings, Toolbox
from gptoss_serve.browsing import ServedBrowser
from gptoss_serve.containers import Containers
from gptoss_serve.errors import InvalidRequest, NotFound
from gptoss_tools import PythonTool
from gptoss_tools.reply import answer, call_text

TOOL = {"type": "code_interpreter", "container": {"type": "auto"}}
OUTPUTS = ["code_interpreter_call.outputs"]


class Notebook:
    """Remembers every code that it was sent; stands in for a jail."""

    name = "python"
    tool_config = ToolNamespaceConfig.python()

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.is_closed = False

    def instruction(self) -> str:
        return ""

    def process(self, message: Any) -> ToolReply:
        async def reply() -> Any:
            assert not self.is_closed
            self.seen.append(call_text(message))
            yield answer(message, " ".join(self.seen), name="python")

        return ToolReply(reply())

    def close(self) -> None:
        self.is_closed = True


class Shelf:
    """Makes notebooks and knows them all; the first says only what the model is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.made: list[Notebook] = []
        self.containers = Containers(self.make, seconds=60.0, most=3, clock=lambda: self.now)
        self.toolbox = Toolbox({"python": self.containers.open}, containers=self.containers)

    def make(self) -> Notebook:
        self.made.append(Notebook())
        return self.made[-1]

    @property
    def alive(self) -> int:
        return sum(not notebook.is_closed for notebook in self.made[1:])


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    yield shelf
    shelf.containers.close()
    assert all(notebook.is_closed for notebook in shelf.made)


def run(code: str) -> str:
    return f"<|channel|>analysis to=python code<|message|>{code}<|call|>"


def logs(response: dict[str, Any]) -> str:
    text: str = response["output"][0]["outputs"][0]["logs"]
    return text


def test_a_conversation_has_one_container(ask: Any, shelf: Shelf, done: str) -> None:
    asker = ask(run("a"), done, run("b"), done, done, run("c"), done, toolbox=shelf.toolbox)
    fields: Any = {"tools": [TOOL], "include": OUTPUTS}

    async def talk() -> None:
        first = await asker(input="Hi", **fields)
        other = await asker(input="Hi", **fields)
        assert (logs(first), logs(other)) == ("a", "b")
        ids = {r["output"][0]["container_id"] for r in (first, other)}
        assert len(ids) == 2
        between = await asker(input="Thanks", previous_response_id=first["id"])
        third = await asker(input="On", previous_response_id=between["id"], **fields)
        assert logs(third) == "a c"
        assert third["output"][0]["container_id"] == first["output"][0]["container_id"]

    asyncio.run(talk())
    assert shelf.alive == 2


def test_items_and_ids_lead_back_to_a_container(ask: Any, shelf: Shelf, done: str) -> None:
    asker = ask(run("a"), done, run("b"), done, run("c"), done, toolbox=shelf.toolbox)
    fields: Any = {"include": OUTPUTS, "store": False}

    async def talk() -> None:
        first = await asker(input="Hi", tools=[TOOL], **fields)
        items = [*first["output"], {"role": "user", "content": "On"}]
        second = await asker(input=items, tools=[TOOL], **fields)
        assert logs(second) == "a b"
        container = first["output"][0]["container_id"]
        named = {"type": "code_interpreter", "container": container}
        third = await asker(input="On", tools=[named], **fields)
        assert logs(third) == "a b c"
        assert third["tools"] == [named]

    asyncio.run(talk())


def test_an_invented_id_is_nobodys_container(ask: Any, shelf: Shelf, done: str) -> None:
    asker = ask(run("a"), done, run("b"), done, toolbox=shelf.toolbox)
    invented = {"type": "code_interpreter_call", "container_id": "cntr_ours", "code": "x"}
    items = [invented, {"role": "user", "content": "On"}]

    async def talk() -> None:
        for wanted in ("a", "b"):  # two users with the same idea
            response = await asker(input=items, tools=[TOOL], include=OUTPUTS)
            assert logs(response) == wanted
            assert response["output"][0]["container_id"] != "cntr_ours"
        named = {"type": "code_interpreter", "container": "cntr_ours"}
        with pytest.raises(NotFound) as refused:
            await asker(input="On", tools=[named])
        assert refused.value.code == "container_not_found"

    asyncio.run(talk())


def test_another_key_has_another_container(serve: Any, shelf: Shelf, done: str) -> None:
    replies = [run("a"), done, run("b"), done, run("c"), done]
    settings = ServerSettings(drain_seconds=2, keys=("k1", "k2"))
    server = serve(replies, settings=settings, toolbox=shelf.toolbox)

    def ask(key: str, **fields: Any) -> httpx.Response:
        body = {"input": "Hi", "tools": [TOOL], "include": OUTPUTS, **fields}
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{server.url}/v1/responses", json=body, headers=headers, timeout=60)

    first = ask("k1").json()
    container = first["output"][0]["container_id"]
    items = [first["output"][0], {"role": "user", "content": "On"}]
    assert logs(ask("k2", input=items).json()) == "b"
    named = [{"type": "code_interpreter", "container": container}]
    assert ask("k2", tools=named).status_code == 404
    assert logs(ask("k1", input=items).json()) == "a c"


def test_deleting_the_last_response_ends_the_container(ask: Any, shelf: Shelf, done: str) -> None:
    asker = ask(run("a"), done, run("b"), done, toolbox=shelf.toolbox)

    async def talk() -> None:
        first = await asker(input="Hi", tools=[TOOL])
        second = await asker(input="On", tools=[TOOL], previous_response_id=first["id"])
        await asker.service.delete(first["id"])
        assert shelf.alive == 1
        await asker.service.delete(second["id"])
        assert shelf.alive == 0

    asyncio.run(talk())


def test_unused_containers_expire(ask: Any, shelf: Shelf, done: str) -> None:
    asker = ask(run("a"), done, run("b"), done, toolbox=shelf.toolbox)

    async def talk() -> None:
        first = await asker(input="Hi", tools=[TOOL], include=OUTPUTS)
        shelf.now = 59.0
        assert shelf.containers.expire() == 0
        shelf.now = 60.0
        assert shelf.containers.expire() == 1
        again = {"previous_response_id": first["id"], "include": OUTPUTS}
        second = await asker(input="On", tools=[TOOL], **again)
        assert logs(second) == "b"  # a new one, with nothing in it

    asyncio.run(talk())


def test_the_oldest_goes_where_there_are_too_many(ask: Any, shelf: Shelf, done: str) -> None:
    asker = ask(run("a"), done, toolbox=shelf.toolbox)

    async def talk() -> None:
        for _ in range(5):
            shelf.now += 1
            await asker(input="Hi", tools=[TOOL])

    asyncio.run(talk())
    assert shelf.alive == len(shelf.containers) == 3
    assert [notebook.is_closed for notebook in shelf.made[1:]] == [True, True, False, False, False]


def test_what_is_in_use_does_not_go(shelf: Shelf) -> None:
    first = shelf.containers.borrow("one")
    shelf.now = 1000.0
    assert shelf.containers.expire() == 0
    shelf.containers.hold("one", "resp")
    shelf.containers.release("resp")
    assert not first.is_closed  # type: ignore[attr-defined]
    shelf.containers.give_back("one")
    assert first.is_closed  # type: ignore[attr-defined]


def test_calls_that_arrive_together_share_one(shelf: Shelf) -> None:
    got: list[Any] = []
    barrier = threading.Barrier(4)

    def borrow() -> None:
        barrier.wait(30)
        got.append(shelf.containers.borrow("one"))

    threads = [threading.Thread(target=borrow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({id(tool) for tool in got}) == 1
    assert shelf.alive == 1


def test_one_of_several_tools_of_ours_can_be_demanded(
    ask: Any, shelf: Shelf, obedient: Any, done: str
) -> None:
    class Nowhere:
        source = "nowhere"

    makers = {
        "python": shelf.containers.open,
        "browser": lambda setup: ServedBrowser(Nowhere(), setup),  # type: ignore[arg-type]
    }
    toolbox = Toolbox(makers, containers=shelf.containers)
    fields: Any = {"tools": [TOOL, {"type": "web_search"}], "tool_choice": "required"}
    asker = ask(engine=obedient([run("a"), done]), toolbox=toolbox)
    response = asyncio.run(asker(input="Hi", **fields))
    assert [item["type"] for item in response["output"]] == ["code_interpreter_call", "message"]
    with pytest.raises(InvalidRequest, match="not allowed"):  # an answer without a call
        asyncio.run(ask(engine=obedient([done]), toolbox=toolbox)(input="Hi", **fields))


def test_nothing_is_made_unless_code_is_run(ask: Any, shelf: Shelf) -> None:
    response = asyncio.run(ask(toolbox=shelf.toolbox)(input="Hi", tools=[TOOL]))
    assert response["tools"] == [TOOL]
    assert len(shelf.made) == 1


def test_a_jail_that_breaks_is_said_to_the_model(ask: Any, shelf: Shelf, done: str) -> None:
    def broken() -> Notebook:
        raise HarmonyError("no jail today")

    shelf.containers._make = broken
    asker = ask(run("a"), done, toolbox=shelf.toolbox)
    response = asyncio.run(asker(input="Hi", tools=[TOOL], include=OUTPUTS))
    assert logs(response) == "[ERROR] no jail today"
    assert response["status"] == "completed"


@pytest.mark.parametrize(
    ("container", "param"),
    [
        ({"type": "auto", "file_ids": ["file_1"]}, "tools[0].container.file_ids"),
        ({"type": "auto", "memory_limit": "64g"}, "tools[0].container.memory_limit"),
        (
            {"type": "auto", "network_policy": {"type": "allowlist", "allowed_domains": ["x"]}},
            "tools[0].container.network_policy.type",
        ),
        ({"type": "manual"}, "tools[0].container.type"),
    ],
)
def test_mistakes_are_named(ask: Any, shelf: Shelf, container: Any, param: str) -> None:
    tool = {"type": "code_interpreter", "container": container}
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(ask(toolbox=shelf.toolbox)(input="Hi", tools=[tool]))
    assert refused.value.param == param


@pytest.mark.bubblewrap
def test_files_stay_in_a_real_jail_and_in_no_other(ask: Any, done: str) -> None:
    try:
        containers = Containers(lambda: PythonTool("bubblewrap"))
    except HarmonyError as error:
        require(False, str(error))
    toolbox = Toolbox({"python": containers.open}, containers=containers)
    write = "open('/mnt/data/note', 'w').write('mine'); print('written')"
    read = "import os; print(os.listdir('/mnt/data'))"
    asker = ask(run(write), done, run(read), done, run(read), done, toolbox=toolbox)
    fields: Any = {"tools": [TOOL], "include": OUTPUTS}

    async def talk() -> None:
        first = await asker(input="Write", **fields)
        mine = await asker(input="Read", previous_response_id=first["id"], **fields)
        other = await asker(input="Read", **fields)
        assert [logs(r) for r in (first, mine, other)] == ["written", "['note']", "[]"]

    try:
        asyncio.run(talk())
    finally:
        containers.close()


@pytest.mark.bubblewrap
@pytest.mark.jupyter
def test_variables_live_on_in_a_stateful_python(ask: Any, done: str) -> None:
    require(find_spec("ipykernel") is not None, "ipykernel is not installed")
    try:
        containers = Containers(lambda: PythonTool("bubblewrap", stateful=True))
    except HarmonyError as error:
        require(False, str(error))
    toolbox = Toolbox({"python": containers.open}, containers=containers)
    asker = ask(run("x = 6"), done, run("print(x * 7)"), done, toolbox=toolbox)
    fields: Any = {"tools": [TOOL], "include": OUTPUTS}

    async def talk() -> None:
        first = await asker(input="Set", **fields)
        second = await asker(input="Get", previous_response_id=first["id"], **fields)
        assert logs(second) == "42"
        await asker.service.delete(first["id"])
        assert len(containers) == 1
        await asker.service.delete(second["id"])
        assert len(containers) == 0

    try:
        asyncio.run(talk())
    finally:
        containers.close()
