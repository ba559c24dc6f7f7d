"""What goes wrong behind us: errors keep their shape, tries are bounded, nothing is left over."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from gptoss_serve import ServerSettings, sse
from gptoss_serve.upstream import stream

SECRET = "sk-secret-key"
PROMPT = "the prompt nobody may read in a log"

CHAT = [{"role": "user", "content": "Hi"}]
DONE = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}


def post(url: str, path: str = "responses", **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/{path}", json={"model": "behind", **body}, timeout=60)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


REFUSALS: list[tuple[int, Any, int, str]] = [
    (400, {"error": {"message": "no", "param": "seed", "code": "bad"}}, 400, "no"),
    (422, {"detail": [{"loc": ["body", "seed"]}]}, 400, "seed"),
    (401, {"error": {"message": f"bad key {SECRET}"}}, 401, "GPTOSS_UPSTREAM_KEY"),
    (403, {"message": "not for you"}, 401, "GPTOSS_UPSTREAM_KEY"),
    (404, {"error": {"message": "no such model"}}, 404, "--upstream-model"),
    (429, {"error": {"message": "slow down"}}, 429, "slow down"),
    (503, {"error": "loading the model"}, 503, "loading the model"),
    (500, {"error": {"message": "out of memory", "code": 500}}, 502, "out of memory"),
    (302, {}, 502, "answered 302"),
]


def test_refusals_keep_their_shape(fake: Any, front: Any) -> None:
    _, url = fake([(status, there) for status, there, _, _ in REFUSALS for _ in range(2)])
    server = front(url, key=SECRET)
    asked = (("responses", {"input": "Hi"}), ("chat/completions", {"messages": CHAT}))
    for status, _, here, words in REFUSALS:
        for path, body in asked:
            answer = post(server.url, path, **body)
            assert answer.status_code == here, answer.text
            error = answer.json()["error"]
            assert words in error["message"]
            assert url in error["message"]
            assert SECRET not in answer.text
            assert error["param"] == ("seed" if status == 400 else None)
            assert not str(error["code"]).isdigit()


def test_a_busy_server_is_asked_again_with_the_same_key(fake: Any, front: Any) -> None:
    busy = (503, {"error": "busy"})
    upstream, url = fake([busy, (429, {}, ("retry-after", "0")), [DONE]])
    answer = post(front(url, retries=2, key=SECRET).url, input="Hi")
    assert answer.status_code == 200, answer.text
    assert upstream.keys == [f"Bearer {SECRET}"] * 3


def test_attempts_are_bounded_and_an_empty_account_is_not_asked_again(
    fake: Any, front: Any
) -> None:
    broke = (429, {"error": {"message": "pay first", "code": "insufficient_quota"}})
    upstream, url = fake([(500, {})] * 3 + [broke])
    server = front(url, retries=2)
    assert post(server.url, input="Hi").status_code == 502
    assert len(upstream.bodies) == 3
    assert post(server.url, input="Hi").status_code == 429
    assert len(upstream.bodies) == 4


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_what_has_streamed_is_not_asked_for_again(
    fake: Any, front: Any, piece: Any, api: str
) -> None:
    error = {"error": {"message": "the card fell off", "code": 500}}
    begun = {
        "chat": [piece(content="Hel"), error],
        "responses": [
            {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": {"type": "message", "id": "m", "role": "assistant", "content": []},
            },
            {
                "type": "response.output_text.delta",
                "item_id": "m",
                "output_index": 0,
                "delta": "Hel",
            },
            {"type": "response.failed", "response": error},
        ],
    }
    upstream, url = fake([begun[api]] * 2)
    server = front(url, api=api, retries=2)
    seen = events(post(server.url, input="Hi", stream=True))
    assert seen[-1]["type"] == "response.failed"
    assert "the card fell off" in seen[-1]["response"]["error"]["message"]
    assert seen[-1]["response"]["output"][0]["content"][0]["text"] == "Hel"
    chunks = events(post(server.url, "chat/completions", messages=CHAT, stream=True))
    assert "the card fell off" in chunks[-1]["error"]["message"]
    assert len(upstream.bodies) == 2


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([{"choices": [{"index": 0, "delta": {"content": "Hel"}}]}], "ended its stream"),
        (
            [DONE | {"choices": [{"delta": {"content": "x"}, "finish_reason": "content_filter"}]}],
            "content filter",
        ),
        (["not an object"], "not an object"),
        ([{"choices": [{"finish_reason": "error", "error": {"message": "gone"}}]}], "gone"),
        ([DONE | {"choices": [{"delta": {"content": "Hel"}}]}, RuntimeError()], "broke off"),
    ],
)
def test_half_an_answer_is_no_answer(fake: Any, front: Any, chunks: list[Any], words: str) -> None:
    _, url = fake([chunks])
    answer = post(front(url).url, input="Hi")
    failed = answer.json()
    message = (failed["error"] or {}).get("message", "")
    assert words in message
    assert answer.status_code == 502 or failed["status"] == "failed"


def test_a_connection_that_breaks_before_anything_came_is_made_again(fake: Any, front: Any) -> None:
    upstream, url = fake([[RuntimeError()], [DONE]])
    assert post(front(url, retries=1).url, input="Hi").json()["status"] == "completed"
    assert len(upstream.bodies) == 2


def test_a_connection_that_breaks_later_is_not_made_again(
    fake: Any, front: Any, piece: Any
) -> None:
    upstream, url = fake([[piece(content="Hel"), RuntimeError()], [DONE]])
    response = post(front(url, retries=2).url, input="Hi").json()
    assert response["status"] == "failed"
    assert "broke off" in response["error"]["message"]
    assert response["output"][0]["content"][0]["text"] == "Hel"
    assert len(upstream.bodies) == 1


def test_nobody_there_is_said_in_one_sentence(front: Any) -> None:
    answer = post(front("http://127.0.0.1:9/v1", retries=1).url, input="Hi")
    assert answer.status_code == 502
    assert "cannot be reached" in answer.json()["error"]["message"]


def test_a_client_that_leaves_ends_the_upstream(fake: Any, front: Any, piece: Any) -> None:
    upstream, url = fake([[piece(content="Hel"), None]])
    server = front(url)
    body = {"model": "behind", "input": "Hi", "stream": True}
    with httpx.stream("POST", f"{server.url}/responses", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            if "output_text.delta" in line:
                break
    assert upstream.left.wait(60), "the upstream went on writing for nobody"


def test_the_time_of_a_turn_ends_the_upstream(fake: Any, front: Any, piece: Any) -> None:
    upstream, url = fake([[piece(content="Hel"), None]])
    settings = ServerSettings(drain_seconds=2, max_seconds=0.5)
    response = post(front(url, settings=settings).url, input="Hi").json()
    assert response["status"] == "incomplete"
    assert response["output"][0]["content"][0]["text"] == "Hel"
    assert upstream.left.wait(60)


def test_a_silent_server_is_given_up_and_not_asked_twice(fake: Any, front: Any, piece: Any) -> None:
    upstream, url = fake([[None]] * 2)
    answer = post(front(url, silence_seconds=0.5, retries=1).url, input="Hi")
    assert answer.status_code == 502
    assert "sent nothing for 0.5 s" in answer.json()["error"]["message"]
    assert len(upstream.bodies) == 1


def test_an_answer_without_end_is_not_read_on(
    fake: Any, front: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sse, stream):
        monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    long = "x" * 200_000
    upstream, url = fake([[long], (200, {"long": long}), (500, {"error": long})])
    server = front(url, retries=2)
    for _ in range(3):
        answer = post(server.url, input="Hi")
        assert answer.status_code == 502
        assert "more than 100000 bytes" in answer.json()["error"]["message"]
    assert len(upstream.bodies) == 3


def test_half_a_key_is_not_shown_either(fake: Any, front: Any) -> None:
    _, url = fake([(400, {"error": {"message": "x" * 990 + SECRET}})])
    answer = post(front(url, key=SECRET).url, input="Hi")
    assert answer.status_code == 400
    assert SECRET[:5] not in answer.text


def test_no_log_has_the_prompt_or_the_key(
    fake: Any, front: Any, caplog: pytest.LogCaptureFixture
) -> None:
    busy, broken = (503, {"error": "busy"}), (500, {"error": "broken"})
    _, url = fake([busy, [DONE], broken, broken, ["not an object"]])
    server = front(url, retries=1, key=SECRET)
    with caplog.at_level(logging.DEBUG):
        statuses = [post(server.url, input=PROMPT).status_code for _ in range(3)]
    assert statuses == [200, 502, 502]
    assert any("busy" in record.getMessage() for record in caplog.records)
    assert PROMPT not in caplog.text
    assert SECRET not in caplog.text
