"""Search, open, perhaps find, and an answer that cites the line it stands on.

The displays are those of the browser tool: a header with cursor, title and address, the lines that
are shown, and numbered lines; links are `【id†text†host】`, citations `【cursor†Ln】`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from recipe.episode import (
    Completion,
    Episode,
    Message,
    Text,
    Turn,
    analysis,
    compact,
    fill,
    final,
    json_text,
    known,
    prose,
    syntax,
    value,
)
from recipe.lexicon import ATTRIBUTES
from recipe.tasks.schemas import number
from recipe.words import Words

ASK = [
    "What is the {a} of {e}?",
    "Search the web: what is the {a} of {e}?",
    "Find the {a} of {e} and cite the source.",
    "Look up the {a} of {e}.",
    "Tell me the {a} of {e}. Cite your source.",
    "Use the browser to find the {a} of {e}.",
    "{a} of {e}?",
    "What's the {a} of {e}? Search for it.",
]


@dataclass(frozen=True)
class Fact:
    """The attribute of an entity has a value."""

    attribute: str
    entity: str
    value: str

    def text(self) -> Text:
        """The fact as a sentence."""
        return fill("The {a} of {e} is {v}.", a=self.attribute, e=self.entity, v=self.value)


def make(rng: random.Random, words: Words, effort: str) -> Episode:
    """An episode of search, open, maybe find, and a cited answer."""
    fact = _fact(rng, words, words.phrase(rng, 2))
    query = f"{fact.attribute} of {fact.entity}"
    results, rank = _results(rng, words, fact)
    first = analysis(
        effort,
        "I search for it.",
        fill("The user asks about {e}. I do not know it. I search for it.", e=fact.entity),
    )
    search = Completion(
        (*first, _call("search", {"query": query})),
        _reply("search", _search_page(rng, fact, results)),
    )
    host, title = results[rank]
    url = f"https://{host}/{rng.choice(['wiki', 'page', 'a', 'en'])}/{rng.randrange(1000)}"
    hidden = rng.random() < 0.35
    page, line = _page(rng, words, fact, title=title, url=url, hidden=hidden)
    opening = analysis(effort, "", "I open the matching result.") if effort == "high" else ()
    opened = Completion((*opening, _call("open", {"id": rank})), _reply("open", page))
    completions = [search, opened]
    cursor = 1
    if hidden:
        thought = (
            analysis(effort, "", "The page is long. I look for the place.")
            if effort == "high"
            else ()
        )
        found, line = _found(rng, words, fact, title=title, url=url)
        completions.append(
            Completion(
                (*thought, _call("find", {"pattern": fact.attribute})), _reply("find", found)
            )
        )
        cursor = 2
    done = analysis(effort, "", "The page has the answer.") if effort == "high" else ()
    cited = (
        *fact.text(),
        *syntax(" 【"),
        *known(str(cursor)),
        *syntax("†L"),
        *known(str(line)),
        *syntax("】"),
    )
    completions.append(Completion((*done, final(cited))))
    user = fill(rng.choice(ASK), a=fact.attribute, e=fact.entity)
    return Episode(
        "browse",
        effort,
        (Turn(user, tuple(completions)),),
        builtins=frozenset({"browser"}),
        about={"fact": fact, "cursor": cursor, "line": line},
    )


def _call(function: str, arguments: dict[str, object]) -> Message:
    return Message(
        json_text(arguments), "analysis", recipient=f"browser.{function}", content_type="code"
    )


def _reply(function: str, display: Text) -> Message:
    name = f"browser.{function}"
    return Message(display, "analysis", role="tool", name=name, recipient="assistant")


def _fact(rng: random.Random, words: Words, entity: str) -> Fact:
    common = rng.random() < (0.2 if words.held else 0.5)
    attribute = rng.choice(ATTRIBUTES) if common else words.word(rng)
    item = str(abs(number(rng))) if rng.random() < 0.5 else words.phrase(rng, 2)
    return Fact(attribute, entity, item)


def _results(rng: random.Random, words: Words, fact: Fact) -> tuple[list[tuple[str, Text]], int]:
    """Search results as (host, title), and the place of the one about the entity."""
    count = rng.randint(1, 5)
    rank = rng.randrange(count)
    found = []
    for index in range(count):
        about = fact.entity if index == rank else words.phrase(rng, 2)
        title = fill(
            rng.choice(["{e}", "{e}", "About {e}", "{e} - Wiki", "Facts about {e}"]), e=about
        )
        found.append(
            (f"{words.identifier(rng, 1)}.{rng.choice(['org', 'com', 'net', 'example'])}", title)
        )
    return found, rank


def _search_page(rng: random.Random, fact: Fact, results: list[tuple[str, Text]]) -> Text:
    rows: list[Text] = [(), prose("URL: "), prose("# Search Results"), ()]
    for index, (host, title) in enumerate(results):
        summary = rng.choice(
            ["", "", f" Page {rng.randrange(100)}.", " A short page.", " More about it."]
        )
        rows.append((*prose(f"  * 【{index}†"), *title, *prose(f"†{host}】{summary}")))
    query = (*value(fact.attribute), *prose(" of "), *value(fact.entity))
    return display(0, query, "", rows)


def display(
    cursor: int, title: Text, url: str, rows: list[Text], *, first: int = 0, last: int | None = None
) -> Text:
    """The browser's display of some lines of a page."""
    end = first + len(rows) - 1
    total = end if last is None else last
    address = f" ({url})" if url else ""
    head = f"{address}\n**viewing lines [{first} - {end}] of {total}**\n"
    out = [*prose(f"[{cursor}] "), *title, *prose(head)]
    for index, row in enumerate(rows):
        out.extend((*prose(f"\nL{first + index}: "), *row))
    return tuple(out)


def _filler(rng: random.Random, words: Words, entity: str, asked: str) -> Text:
    """A line that does not answer the question: never about the attribute that was asked for."""
    kind = rng.random()
    if kind < 0.3:
        return ()
    if kind < 0.8:
        other = _fact(rng, words, entity if kind < 0.6 else words.phrase(rng, 2))
        return () if other.attribute == asked else other.text()
    return fill(
        rng.choice(["This page is about {w}.", "See also {w}.", "## {w}", "Many people know {w}."]),
        w=words.phrase(rng, 2),
    )


def _page(
    rng: random.Random, words: Words, fact: Fact, *, title: Text, url: str, hidden: bool
) -> tuple[Text, int]:
    """The opened page and the line of the fact (unknown, 0, where the window ends before it)."""
    rows: list[Text] = [(), prose(f"URL: {url}"), (*prose("# "), *title), ()]
    body = [_filler(rng, words, fact.entity, fact.attribute) for _ in range(rng.randint(1, 9))]
    line = 0
    if not hidden:
        place = rng.randint(0, len(body))
        body.insert(place, fact.text())
        line = len(rows) + place
    rows += body
    last = len(rows) - 1 + (rng.randint(5, 200) if hidden else 0)
    return display(1, title, url, rows, last=last), line


def _found(
    rng: random.Random, words: Words, fact: Fact, *, title: Text, url: str
) -> tuple[Text, int]:
    """The page of matches, and the line of the fact on it."""
    heading = (
        *prose("Find results for text: `"),
        *value(fact.attribute),
        *prose("` in `"),
        *title,
        *prose("`"),
    )
    where = rng.randint(12, 200)
    rows: list[Text] = []
    others = rng.choice([0, 0, 1])
    place = rng.randint(0, others)
    line = 0
    for index in range(others + 1):
        rows.append(prose(f"# 【{index}†match at L{where + 9 * index}】"))
        if index == place:
            line = len(rows)
            rows.append(fact.text())
        else:
            rows.append(Fact(fact.attribute, words.phrase(rng, 2), words.phrase(rng, 2)).text())
        rows += [_filler(rng, words, fact.entity, fact.attribute) for _ in range(rng.randint(0, 2))]
        rows.append(())
    return display(2, heading, url + "/find?pattern=" + compact(fact.attribute)[1:-1], rows), line
