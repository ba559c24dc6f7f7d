"""`gptoss generate` on recordings: what goes to which stream, and the JSON form."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_harmony import cli
from gptoss_harmony.answer_stats import AnswerStats
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


def test_a_bad_flag_is_said_before_the_checkpoint_is_opened(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flags in (["-t", "-1"], ["--top-p", "0"], ["-t", "nan"]):
        assert cli.main(["generate", "/no/such/script", "-b", "scripted", *flags]) == 2
        assert "must be" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["-4", "x", "1.5"])
def test_the_limit_is_a_whole_number(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli.main(["generate", "nano", "-l", value])
    assert leaving.value.code == 2
    assert "argument -l/--limit: " in capsys.readouterr().err


def run_command(arguments: list[str], data: bytes = b"", **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "gptoss_harmony.cli", "generate", *arguments],
        input=data,
        capture_output=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    return done.returncode, (done.stdout or done.stderr).decode()


def test_a_terminal_that_lacks_a_character_gets_its_number(script: str) -> None:
    code, out = run_command([script, "-b", "scripted"], PYTHONIOENCODING="ascii")
    assert (code, out) == (0, "Gr\\xfc\\xdfe \\U0001f30d\n")


def test_input_that_is_no_text_is_one_sentence(script: str) -> None:
    code, message = run_command(
        [script, "-b", "scripted", "-p", "-"], b"a\xff", PYTHONIOENCODING="utf-8:strict"
    )
    assert code == 2
    assert "standard input is not utf-8 text (byte 1)" in message


class Printer:
    """Fails at its first tokens, as a terminal does at Ctrl-C and a pipe that nobody reads."""

    def __init__(self, *errors: type[BaseException]) -> None:
        self.errors = list(errors)
        self.tokens: list[int] = []

    def show(self, token: int) -> None:
        self.tokens.append(token)
        if self.errors:
            raise self.errors.pop(0)

    def finish(self) -> dict[str, object]:
        return {}


def running(*outputs: TokenOutput) -> tuple[TokenStream, list[str]]:
    """A stream that ends as soon as it is cancelled."""
    cancels: list[str] = []

    def cancelled() -> None:
        cancels.append("cancelled")
        stream.finish_cancelled()

    stream = TokenStream(on_cancel=cancelled)
    stream.begin(cached_tokens=3)
    for output in outputs:
        stream.put(output)
    return stream, cancels


def test_the_first_ctrl_c_keeps_what_came() -> None:
    stream, cancels = running(TokenOutput(1), TokenOutput(2))
    stats = AnswerStats(prompt_tokens=5)
    assert generate.follow(stream, Printer(KeyboardInterrupt), stats) == [1, 2]
    assert cancels == ["cancelled"]
    assert (stats.finish_reason, stats.cached_tokens) == ("cancelled", 3)


@pytest.mark.parametrize("errors", [[KeyboardInterrupt] * 2, [BrokenPipeError], [OSError]])
def test_leaving_at_once_stops_the_engine(errors: list[type[BaseException]]) -> None:
    stream, cancels = running(TokenOutput(1), TokenOutput(2))
    with pytest.raises(errors[-1]):
        generate.follow(stream, Printer(*errors), AnswerStats(prompt_tokens=5))
    assert cancels == ["cancelled"]


def test_a_failure_of_the_engine_comes_out() -> None:
    stream, _ = running(TokenOutput(1))
    stream.fail(ContextOverflow("full"))
    with pytest.raises(ContextOverflow, match="full"):
        generate.follow(stream, Printer(), AnswerStats(prompt_tokens=1))
