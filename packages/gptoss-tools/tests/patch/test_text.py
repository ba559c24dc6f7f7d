"""Files keep the bytes that a patch leaves alone."""

from hypothesis import given
from hypothesis import strategies as st

from gptoss_tools.patch.text import Line, TextFile


@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode())))
def test_decoding_and_encoding_any_bytes_changes_nothing(data: bytes) -> None:
    assert TextFile.decode(data).encode("f") == data


def test_only_newlines_end_lines() -> None:
    file = TextFile.decode("a\x0cb\u2028c\x85d\ne".encode())
    assert [line.text for line in file.lines] == ["a\x0cb\u2028c\x85d", "e"]


def test_bom_and_crlf_are_set_aside() -> None:
    file = TextFile.decode(b"\xef\xbb\xbfa\r\nb")
    assert file.bom
    assert file.lines == (Line("a", "\r\n"), Line("b", ""))
    assert file.usual_ending() == "\r\n"


def test_a_former_last_line_gets_an_ending() -> None:
    file = TextFile((Line("a", ""), Line("b", "\n")))
    assert file.encode("f") == b"a\nb"
