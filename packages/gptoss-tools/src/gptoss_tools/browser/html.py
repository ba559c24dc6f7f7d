"""HTML to the text that the model reads: headings, lists, tables, code, formulas, links, images.

The parser is lxml's (libxml2), which repairs what is broken; the tree is walked without recursion,
so depth costs nothing, and both the tree and the text are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import lxml.etree  # type: ignore[import-untyped]
import lxml.html  # type: ignore[import-untyped]

from gptoss_tools.browser.links import LinkTable, page_characters
from gptoss_tools.browser.page import Page, host_of
from gptoss_tools.browser.writer import TextWriter

MAX_CHARACTERS = 2_000_000  # of text; what follows is cut with a note
_MAX_HTML = 10_000_000  # characters that are parsed
_MAX_ELEMENTS = 400_000
_SKIPPED = {"audio", "canvas", "embed", "head", "iframe", "noscript", "object", "script", "select"}
_SKIPPED |= {"style", "svg", "template", "video"}
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
# Elements on lines of their own: with a blank line around them, and without.
_PARAGRAPHS = {"blockquote", "dl", "figure", "ol", "p", "pre", "table", "ul", *_HEADINGS}
_LINES = {"address", "article", "aside", "body", "caption", "dd", "details", "div", "dt"}
_LINES |= {"fieldset", "figcaption", "footer", "form", "header", "legend", "li", "main", "nav"}
_LINES |= {"section", "summary", "tbody", "tfoot", "thead", "tr"}
_CAPTURED = {"a", "sub", "sup"}
_CUT = "[The rest of the page is cut.]"
_WORD = re.compile(r"[\w\-+−]+")


def html_page(html: str, url: str, *, title: str = "") -> Page:
    """Turn HTML into a page.

    Args:
        html: any text; broken, hostile or empty HTML gives a page nevertheless.
        url: where it came from.
        title: wins over the document's own.
    """
    root = _parse(page_characters(html[:_MAX_HTML]))
    if root is None:
        return Page(url, title or host_of(url), f"\nURL: {url}\n")
    reader = _Reader(LinkTable(url))
    reader.read(root)
    found = " ".join(_characters(root.findtext(".//title")).split())
    text = f"\nURL: {url}\n{_shortened(reader.writer.text())}"
    return Page(url, title or found or host_of(url), text, reader.table.links)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}\n\n{_CUT}"


def _parse(html: str) -> Any:
    # Declarations inside the text would contradict the characters it already consists of.
    parser = lxml.html.HTMLParser(
        encoding="utf-8", huge_tree=False, no_network=True, remove_comments=True, remove_pis=True
    )
    try:
        return lxml.html.document_fromstring(html.encode("utf-8", "replace"), parser=parser)
    except (lxml.etree.ParserError, lxml.etree.XMLSyntaxError, ValueError):
        return None


class _Reader:
    """Turns the events of a tree into writing."""

    def __init__(self, table: LinkTable) -> None:
        self.table = table
        self.writer = TextWriter()
        self._lists: list[int | None] = []  # None: bullets; a number: the last one used
        self._cells = 0  # of the current table row
        self._images = 0

    def read(self, root: Any) -> None:
        for count, (event, element) in enumerate(_walk(root)):
            if count > _MAX_ELEMENTS or self.writer.length > MAX_CHARACTERS:
                self.writer.note(_CUT)
                return
            if event == "start":
                self._open(element.tag, element)
                if element.tag != "math":
                    self.writer.text_node(_characters(element.text))
                continue
            if event == "end":
                self._close(element.tag, element)
            self.writer.text_node(_characters(element.tail))

    def _open(self, tag: str, element: Any) -> None:
        if tag in _PARAGRAPHS or tag in _LINES:
            nested = tag in ("ul", "ol") and self._lists
            self.writer.break_(2 if tag in _PARAGRAPHS and not nested else 1)
        if tag in _HEADINGS:
            self.writer.write(_HEADINGS[tag])
        elif tag in _CAPTURED:
            self.writer.begin_capture()
        elif opener := getattr(self, f"_open_{tag}", None):
            opener(element)

    def _close(self, tag: str, element: Any) -> None:
        if tag in _CAPTURED:
            self._end_capture(tag, element)
        elif closer := getattr(self, f"_close_{tag}", None):
            closer()
        if tag in _PARAGRAPHS or tag in _LINES:
            nested = tag in ("ul", "ol") and self._lists
            self.writer.break_(2 if tag in _PARAGRAPHS and not nested else 1)

    def _end_capture(self, tag: str, element: Any) -> None:
        def index(text: str) -> str:
            mark = "^" if tag == "sup" else "_"
            return f"{mark}{{{text.strip()}}}" if _WORD.fullmatch(text.strip()) else text

        href = element.get("href") or ""
        self.writer.end_capture(
            (lambda text: self.table.render(href, text)) if tag == "a" else index
        )

    def _open_ul(self, element: Any) -> None:
        self._lists.append(None)

    def _open_ol(self, element: Any) -> None:
        self._lists.append(0)

    def _close_ul(self) -> None:
        if self._lists:
            self._lists.pop()

    _close_ol = _close_ul

    def _open_li(self, element: Any) -> None:
        indent = "  " * max(len(self._lists), 1)
        if self._lists and self._lists[-1] is not None:
            self._lists[-1] += 1
            self.writer.write(f"{indent}{self._lists[-1]}. ")
        else:
            self.writer.write(f"{indent}* ")

    def _open_pre(self, element: Any) -> None:
        self.writer.preformatted += 1

    def _close_pre(self) -> None:
        self.writer.preformatted -= 1

    def _open_blockquote(self, element: Any) -> None:
        self.writer.quotes += 1

    def _close_blockquote(self) -> None:
        self.writer.quotes -= 1

    def _open_tr(self, element: Any) -> None:
        self._cells = 0

    def _open_td(self, element: Any) -> None:
        if self._cells:
            self.writer.separator(" | ")
        self._cells += 1

    _open_th = _open_td

    def _open_br(self, element: Any) -> None:
        self.writer.newline()

    def _open_hr(self, element: Any) -> None:
        self.writer.break_(2)
        self.writer.write("* * *")
        self.writer.break_(2)

    def _open_img(self, element: Any) -> None:
        words = " ".join(_characters(element.get("alt") or element.get("title")).split())
        image = f"Image {self._images}: {words}" if words else f"Image {self._images}"
        self.writer.write(f"[{image}]")
        self._images += 1

    def _open_math(self, element: Any) -> None:
        """TeX where the page has it, else the symbols in a row."""
        tex = element.get("alttext") or ""
        for note in element.iter("annotation"):
            if "tex" in (note.get("encoding") or ""):
                tex = note.text or tex
        tex = " ".join((tex or "".join(element.itertext())).split())
        if tex:
            self.writer.write(f"${_characters(tex)}$")


def _characters(text: str | None) -> str:
    """Text of a node; references such as `&#12304;` are characters only now."""
    if not text or text.isascii():
        return text or ""
    return page_characters(text)


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Start and end of every shown element; ("tail", element) for those passed over."""
    walker = lxml.etree.iterwalk(root, events=("start", "end"))
    skipped: Any = None
    for event, element in walker:
        if not isinstance(element.tag, str):
            continue
        hidden = element.tag in _SKIPPED or element.get("hidden") is not None
        if event == "start" and hidden:
            walker.skip_subtree()
            skipped = element
        elif event == "end" and element is skipped:
            skipped = None
            yield "tail", element
        else:
            yield event, element
            if event == "start" and element.tag == "math":
                walker.skip_subtree()
