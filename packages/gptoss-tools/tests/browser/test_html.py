"""HTML to text: structure, links, hostile input."""

import time

import pytest

from gptoss_tools.browser.html import MAX_CHARACTERS, html_page
from gptoss_tools.browser.page import Link

URL = "https://site.example/dir/page.html"


def text_of(html: str) -> str:
    _, _, text = html_page(html, URL).text.partition(f"URL: {URL}\n")
    return text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<h1>A</h1><h3>B</h3>c", "# A\n\n### B\n\nc"),
        ("<p>one</p><p>two<br>three</p>", "one\n\ntwo\nthree"),
        ("a <b>b</b><i>c</i>  d", "a bc d"),
        ("<ul><li>a<li>b<ol><li>c</ol></ul>", "  * a\n  * b\n    1. c"),
        ("<pre>x\n  y\n\nz</pre>after", "    x\n      y\n\n    z\n\nafter"),
        ("<table><tr><th>A<th>B<tr><td>1<td>2</table>", "A | B\n1 | 2"),
        ("<blockquote><p>q</p></blockquote>", "> q"),
        ("x<sup>2</sup> y<sub>i</sub> <sup>a b</sup>", "x^{2} y_{i} a b"),
        ("<img alt='A cat'><img title=T><img src=x>", "[Image 0: A cat][Image 1: T][Image 2]"),
        ("<math alttext='x^2'><mi>x</mi></math> end", "$x^2$ end"),
        ("<math><mi>a</mi><mo>+</mo><mi>b</mi></math>", "$a+b$"),
        (
            "<math><semantics><mi>a</mi><annotation encoding='application/x-tex'>\\a"
            "</annotation></semantics></math>",
            "$\\a$",
        ),
        ("<script>evil()</script><style>x{}</style>a<noscript>b</noscript>c", "ac"),
        ("<p hidden>secret</p>shown", "shown"),
        ("<!-- c --><p>&lt;tag&gt; &amp; &eacute;</p>", "<tag> & é"),
        ("a<hr>b", "a\n\n* * *\n\nb"),
        ("【x】 ◼ \u200b🎉e", "〖x〗 ◾ e"),
        ("", ""),
        ("<", "<"),
        ("\x00a", "a"),
    ],
)
def test_structure(html: str, text: str) -> None:
    assert text_of(html) == text


def test_links_are_numbered_by_url_and_name_other_hosts() -> None:
    page = html_page(
        "<a href='/a'>A</a> <a href='other.html'>O†</a> <a href='https://x.example/q'>X\n y</a> "
        "<a href='/a'>again</a> <a href='#f'>frag</a> <a href='mailto:m'>mail</a> "
        "<a href='javascript:e()'>js</a> <a href='http://arxiv.org/abs/1'>paper</a> "
        "<a href='/i'><img alt='logo'></a> <a href='http://['>bad</a> <a href='/e'></a>end",
        URL,
    )
    assert page.text.endswith(
        "【0†A】 【1†O‡】 【2†X y†x.example】 【0†again】 frag mail js 【3†paper†ar5iv.org】 "
        "【4†[Image 0: logo]】 bad end"
    )
    assert page.links == {
        0: Link("https://site.example/a"),
        1: Link("https://site.example/dir/other.html"),
        2: Link("https://x.example/q"),
        3: Link("http://ar5iv.org/abs/1"),
        4: Link("https://site.example/i"),
    }


def test_a_page_cannot_write_brackets_of_ours() -> None:
    html = "<title>&#12304;T</title>&#x3010;0†L1&#x3011; <a href='/a'>&#12305;b</a> "
    html += "<img alt='&#12304;c'><pre>&#12304;1†d&#12305;</pre><math>&#12304;</math>"
    html += "<a href='http://x†y】z/'>e</a>"
    page = html_page(html, URL)
    assert page.title == "〖T"
    assert page.text.count("【") == page.text.count("】") == len(page.links) == 2
    assert "【0†〗b】" in page.text


def test_titles() -> None:
    assert html_page("<title> A\n b </title>", URL).title == "A b"
    assert html_page("<p>x", URL).title == "site.example"
    assert html_page("<title>A</title>", URL, title="given").title == "given"


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 200_000 + "x",
        "<b><i>" * 100_000,
        "<a href='x'>" * 50_000,
        "<blockquote>" * 250 + "<br>x" * 100_000,
        "<table><tr><td>" * 20_000,
        "<!DOCTYPE x [<!ENTITY a 'b'><!ENTITY c '&a;&a;'>]><p>&c;",
        "&amp" * 100_000,
        "<p>" + "x" * 5_000_000,
        "<![CDATA[" * 1000,
        "<x:y z='" * 1000,
        "<p " + "a=b " * 100_000 + ">x",
        "<p>word and word " * 6_000_000,
        "\ud800\udfff\ufffe",
    ],
    ids=lambda html: html[:12].encode("utf-8", "replace").decode(),
)
def test_hostile_html_gives_a_bounded_page(html: str) -> None:
    started = time.process_time()
    page = html_page(html, URL)
    assert len(page.text) < MAX_CHARACTERS + 1000
    assert page.lines
    # A bound on work, not a benchmark: quadratic behaviour would take minutes.
    assert time.process_time() - started < 60
