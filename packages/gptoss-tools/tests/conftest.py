"""A small corpus, and what real parts there are."""

from pathlib import Path

import pytest

from gptoss_tools.browser.backends.corpus import CorpusBackend, build_index

PAGES = {
    "index.html": "<title>Home</title><h1>Home</h1><p>See <a href='tea.html'>tea</a> and "
    "<a href='notes/water.md'>water</a>, or <a href='https://example.org/x'>elsewhere</a>.</p>",
    "tea.html": "<title>Green tea</title><h1>Green tea</h1><p>Green tea is brewed at 80 degrees. "
    "<a href='index.html'>Home</a></p>",
    "notes/water.md": "# Water\n\nWater boils at 100 degrees. Read about [tea](../tea.html).\n",
    "plain.txt": "A text without markup.\nBoiling water makes steam.\n",
    "long.html": "<title>Long</title>"
    + "".join(f"<p>Paragraph {n} of the long page about nothing.</p>" for n in range(400)),
}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the small corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, text in PAGES.items():
        path = folder / "pages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    build_index(folder / "pages", folder / "pages.db")
    return folder / "pages.db"


@pytest.fixture
def backend(corpus: Path):  # type: ignore[no-untyped-def]
    """The small corpus as a backend."""
    backend = CorpusBackend(corpus)
    yield backend
    backend.close()
