"""The offline corpus: indexing, refreshing, searching, fetching."""

import asyncio
import os
from pathlib import Path

import pytest

from gptoss_tools import CorpusBackend
from gptoss_tools.browser.backends.corpus import build_index
from gptoss_tools.errors import BackendError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "a.html").write_text("<title>Alpha</title><p>apples and pears</p>")
    (folder / "sub dir" / "b.md").write_text("# Beta\n\npears and plums\n")
    (folder / "c.txt").write_text("cherries")
    (folder / ".hidden.txt").write_text("apples")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def titles(index: Path, query: str, topn: int = 10) -> list[str]:
    backend = CorpusBackend(index)
    try:
        return [hit.title for hit in asyncio.run(backend.search(query, topn=topn))]
    finally:
        backend.close()


def test_indexing_reads_only_what_changed(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "i.db"
    first = build_index(folder, index)
    assert (first.added, first.unchanged, first.removed, first.skipped) == (3, 0, 0, {})
    (folder / "c.txt").unlink()
    (folder / "a.html").write_text("<title>Alpha 2</title><p>apples only</p>")
    os.utime(folder / "a.html", ns=(1, 1))
    again = build_index(folder, index)
    assert (again.added, again.unchanged, again.removed) == (1, 1, 1)
    assert titles(index, "apples") == ["Alpha 2"]
    assert titles(index, "cherries") == []


def test_pages_with_all_words_come_first_and_titles_count_more(
    folder: Path, tmp_path: Path
) -> None:
    index = tmp_path / "i.db"
    build_index(folder, index)
    assert titles(index, "pears plums") == ["Beta", "Alpha"]
    assert titles(index, "pears plums", topn=1) == ["Beta"]
    assert titles(index, "alpha") == ["Alpha"]


@pytest.mark.parametrize(
    "query",
    ['"', "'", "a AND", "NEAR(", "*", "title:x", "-pears", "()", "pears OR", "\x00", "^pears", ""],
)
def test_queries_are_words_and_never_syntax(folder: Path, tmp_path: Path, query: str) -> None:
    index = tmp_path / "i.db"
    build_index(folder, index)
    assert isinstance(titles(index, query), list)


def test_urls_with_spaces_fragments_and_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "index.html").write_text("<p>front")
    index = tmp_path / "i.db"
    build_index(folder, index, base_url="https://docs.example/base")
    backend = CorpusBackend(index)

    async def check() -> None:
        base = "https://docs.example/base"
        for url in (f"{base}/sub%20dir/b.md", f"{base}/sub dir/b.md#x"):
            assert (await backend.fetch(url)).title == "Beta"
        assert "front" in (await backend.fetch(f"{base}/")).text
        for url in (f"{base}/../a.html", "file:///etc/passwd", "https://elsewhere.example/", ""):
            with pytest.raises(BackendError):
                await backend.fetch(url)

    asyncio.run(check())
    backend.close()


def test_files_that_cannot_be_read_are_reported(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    (folder / "bad.pdf").write_bytes(b"%PDF-1.4 nothing")
    report = build_index(folder, tmp_path / "i.db")
    assert report.added == 3
    assert "PDF" in report.skipped["bad.pdf"]


def test_links_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    build_index(folder, tmp_path / "i.db")
    assert titles(tmp_path / "i.db", "secret") == []


def test_what_is_no_index_and_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database, but long enough to look like one" * 50)
    with pytest.raises(BackendError, match="not an index"):
        CorpusBackend(tmp_path / "x.db")
    with pytest.raises(BackendError, match="gptoss tool browser index"):
        CorpusBackend(tmp_path / "nowhere.db")
    with pytest.raises(BackendError, match="not a folder"):
        build_index(tmp_path / "nowhere", tmp_path / "i.db")
    with pytest.raises(BackendError, match="cannot be used"):
        build_index(tmp_path, tmp_path / "x.db")
