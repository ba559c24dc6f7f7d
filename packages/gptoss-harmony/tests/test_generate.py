"""`gptoss generate` on recordings: what goes to which stream, and the JSON form."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_harmony import cli
from gptoss_harmony.commands import generate
from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.engine import TokenOutput
from gptoss_harmony.errors import ContextOverflow
from gptoss_harmony.generation import TokenStream

ANSWER = (
    "<|channel|>analysis<|message|>Think.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Grüße 🌍<|return|>"
)
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a":1}<|call|>'


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"replies": [ANSWER]}))
    return str(path)


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["generate", script, "-b", "scripted", "-p", "Hello"]) == 0
    out, err = capsys.readouterr()
    assert out == "Grüße 🌍\n"
    assert "[analysis] Think." in err
    assert "ended by stop" in err


def test_json_has_messages_tokens_and_stats(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["generate", script, "-b", "scripted", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [message["channel"] for message in document["messages"]] == ["analysis", "final"]
    assert document["tokens"] == load_encoding().encode(ANSWER, allowed_special="all")
    assert document["stats"]["finish_reason"] == "stop"
    assert document["stats"]["generated_tokens"] == len(document["tokens"])


def test_raw_prints_the_continuation_with_whole_characters(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--raw", "-p", "<|start|>assistant", "-l", "40"]
    assert cli.main(["generate", script, "-b", "scripted", *flags]) == 0
    assert capsys.readouterr().out == "<|channel|>analysis<|message|>Think.<|end|>\n"


def test_the_limit_cuts_the_answer(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", script, "-b", "scripted", "-l", "2", "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)["stats"]
    assert (stats["generated_tokens"], stats["finish_reason"]) == (2, "length")


def test_a_call_is_shown_with_its_recipient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "call.json"
    path.write_text(json.dumps({"replies": [CALL]}))
    assert cli.main(["generate", str(path), "-b", "scripted"]) == 0
    out, err = capsys.readouterr()
    assert '[commentary to functions.f] {"a":1}' in err
    assert out == ""


def test_the_prompt_comes_from_standard_input(script: str) -> None:
    command = [sys.executable, "-m", "gptoss_harmony.cli", "generate", script, "-b", "scripted"]
    done = subprocess.run(
        [*command, "-p", "-"], input="Hi", capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "Grüße 🌍\n"


def test_an_empty_raw_prompt_is_one_sentence(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["generate", script, "-b", "scripted", "--raw", "-p", ""]) == 2
    assert "--raw needs a prompt" in capsys.readouterr().err


def test_a_context_that_is_too_small_is_one_sentence(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["generate", script, "-b", "scripted", "--context", "5"]) == 2
    assert "context" in capsys.readouterr().err


class Recorder:
    def __init__(self) -> None:
        self.tokens: list[int] = []

    def show(self, token: int) -> None:
        self.tokens.append(token)
        if len(self.tokens) == 1:
            raise KeyboardInterrupt

    def finish(self) -> dict[str, object]:
        return {}


def test_what_an_error_interrupts_is_not_swallowed() -> None:
    stream = TokenStream()
    stream.put(TokenOutput(1))
    stream.fail(ContextOverflow("full"))
    with pytest.raises(KeyboardInterrupt):
        generate.follow(stream, Recorder(), generate.Stats(prompt_tokens=1))


def test_raw_holds_back_unfinished_characters() -> None:
    encoding = load_encoding()
    out = io.StringIO()
    printer = generate.RawPrinter(encoding, out)
    for token in encoding.encode("a🌍👩‍🚀é"):
        printer.show(token)
        assert "\N{REPLACEMENT CHARACTER}" not in out.getvalue()
    assert printer.finish() == {"text": "a🌍👩‍🚀é"}
