"""What an answer looks like while it comes."""

import io

import pytest

from gptoss_harmony.answer_printer import HarmonyPrinter, RawPrinter
from gptoss_harmony.encoding import load_encoding

ENCODING = load_encoding()
ANSWER = (
    "<|channel|>analysis<|message|>Think.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Grüße 🌍<|return|>"
)


def printed(text: str, *, dim: bool = False) -> tuple[str, str, dict[str, object]]:
    out, notes = io.StringIO(), io.StringIO()
    printer = HarmonyPrinter(ENCODING, out, notes, dim=dim)
    for token in ENCODING.encode(text, allowed_special="all"):
        printer.show(token)
    result = printer.finish()
    return out.getvalue(), notes.getvalue(), result


def test_only_final_text_goes_to_the_first_stream() -> None:
    out, notes, result = printed(ANSWER)
    assert out == "Grüße 🌍\n"
    assert notes == "[analysis] Think.\n"
    assert [message["channel"] for message in result["messages"]] == ["analysis", "final"]


def test_only_notes_are_faint_and_only_where_that_shows() -> None:
    out, notes, _ = printed(ANSWER, dim=True)
    assert out == "Grüße 🌍\n"
    assert notes == "\x1b[2m[analysis] Think.\x1b[0m\n"


def test_repairs_are_said() -> None:
    out, notes, _ = printed("No header at all")
    assert out == "No header at all\n"
    assert notes.startswith("[repaired: ")


def test_nothing_is_printed_without_streams() -> None:
    printer = HarmonyPrinter(ENCODING, None, None)
    for token in ENCODING.encode(ANSWER, allowed_special="all"):
        printer.show(token)
    assert len(printer.finish()["messages"]) == 2


@pytest.mark.parametrize("text", ["a🌍👩‍🚀é", "plain", ""])
def test_raw_holds_back_unfinished_characters(text: str) -> None:
    out = io.StringIO()
    printer = RawPrinter(ENCODING, out)
    for token in ENCODING.encode(text):
        printer.show(token)
        assert "\N{REPLACEMENT CHARACTER}" not in out.getvalue()
    assert printer.finish() == {"text": text}
    assert out.getvalue() == text + "\n"


def test_raw_shows_bytes_that_never_become_a_character() -> None:
    broken = ENCODING.encode("🌍")[:1]
    printer = RawPrinter(ENCODING, None)
    for token in broken * 3:
        printer.show(token)
    assert set(printer.finish()["text"]) == {"\N{REPLACEMENT CHARACTER}"}
