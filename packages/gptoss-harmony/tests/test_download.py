"""Against a local server that speaks the hub's documented wire; the real hub is out of reach.

Model info with blobs, `resolve` with X-Repo-Commit, X-Linked-Etag and a redirect to another host
for large files, and byte ranges there. It can cut transfers short and answer with errors.
"""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gptoss_harmony import hub_download
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.cli import main
from gptoss_harmony.errors import CheckpointError, NotInstalled, UsageError
from gptoss_harmony.hub_download import download_model
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = tiny_config(vocab_size=320)


class Hub:
    """The files of openai/gpt-oss-20b and what has been asked for."""

    def __init__(self, files):
        self.files = files
        self.requests = []  # (path, Range header, Authorization header) of each GET for content
        self.cuts = []  # bytes after which the next transfers break off
        self.failures = []  # status codes that the next transfers after a cut answer
        self.corrupt = False
        self.info_status = 200

    def blob(self, name):
        algorithm = "sha256" if name.endswith((".safetensors", ".bin")) else "sha1"
        return hashlib.new(algorithm, self.files[name]).hexdigest()

    def info(self):
        siblings = []
        for name, content in self.files.items():
            sibling = {"rfilename": name, "size": len(content), "blobId": self.blob(name)[:40]}
            if len(self.blob(name)) == 64:
                sibling["lfs"] = {"size": len(content), "sha256": self.blob(name), "pointerSize": 9}
            siblings.append(sibling)
        model = "openai/gpt-oss-20b"
        return {"id": model, "modelId": model, "sha": COMMIT, "siblings": siblings}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        name = self.path.removeprefix(f"/openai/gpt-oss-20b/resolve/{COMMIT}/")
        hub = self.server.hub
        if name not in hub.files:
            return self.answer(404, b"")
        headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(hub.files[name]))}
        headers["X-Linked-Etag"] = f'"{hub.blob(name)}"'
        if len(hub.blob(name)) == 64:  # large files live on another host
            port = self.server.server_port
            headers["Location"] = f"http://localhost:{port}/cdn/{name}"
            return self.answer(302, b"", headers)
        return self.answer(200, hub.files[name], headers)

    def do_GET(self):
        hub = self.server.hub
        if self.path.startswith("/api/models/openai/gpt-oss-20b"):
            return self.answer(hub.info_status, json.dumps(hub.info()).encode())
        name = re.sub(rf"^(/cdn/|/openai/gpt-oss-20b/resolve/{COMMIT}/)", "", self.path)
        return self.content(hub, name)

    def content(self, hub, name):
        asked = self.headers.get("Range")
        hub.requests.append((name, asked, self.headers.get("Authorization")))
        if name.endswith(".safetensors") and not hub.cuts and hub.failures:
            return self.answer(hub.failures.pop(0), b"")
        content = hub.files[name]
        start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if asked else 0
        body = content[start:]
        if hub.corrupt:
            body = bytes(len(body))
        headers = {"Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = hub.cuts.pop(0) if hub.cuts and name.endswith(".safetensors") else None
        return self.answer(206 if asked else 200, body, headers, cut=cut)

    def answer(self, status, body, headers=None, *, cut=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Files as the hub has them: three layouts and what lies around."""
    root = tmp_path_factory.mktemp("published")
    random_checkpoint(root / "original", CONFIG, seed=2)
    random_checkpoint(root / "hf", CONFIG, seed=2, layout="hf-mxfp4", max_shard_bytes=200_000)
    files = {f"original/{p.name}": p.read_bytes() for p in (root / "original").iterdir()}
    files |= {p.name: p.read_bytes() for p in (root / "hf").iterdir()}
    files |= {"metal/model.bin": b"metal" * 100, ".gitattributes": b"x", "README.md": b"readme"}
    return files


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    # Whoever runs the tests may have told the library to stay offline; this hub is on the machine.
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # An interrupted chunk (10 MB) is lost; small ones make the loss smaller than the test's files.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 8192)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub(dict(published))
    server.hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.hub
    server.shutdown()
    server.server_close()
    thread.join()


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("layout", ["original", "hf", "metal"])
def test_each_layout_arrives_whole_and_alone(hub, tmp_path, layout):
    folder = download_model("gpt-oss-20b", layout=layout, to=tmp_path / "to", endpoint=hub.endpoint)
    prefix = "" if layout == "hf" else f"{layout}/"
    expected = {
        name: content
        for name, content in hub.files.items()
        if name.startswith(prefix) and "/" not in name.removeprefix(prefix) and name[0] != "."
    }
    assert contents(tmp_path / "to") == expected
    assert folder == tmp_path / "to" / prefix
    if layout != "metal":
        assert Checkpoint.open(folder).config == CONFIG


def test_the_cache_looks_as_hugging_face_tools_leave_it(hub, tmp_path):
    from huggingface_hub import try_to_load_from_cache

    folder = download_model("openai/gpt-oss-20b", endpoint=hub.endpoint)
    cache = tmp_path / "cache"
    found = try_to_load_from_cache(
        "openai/gpt-oss-20b", "original/model.safetensors", cache_dir=cache, revision="main"
    )
    assert found == str(folder / "model.safetensors")
    assert os.path.islink(found)
    assert Checkpoint.open("gpt-oss-20b").path == folder
    hub.requests.clear()
    assert download_model("gpt-oss-20b", endpoint=hub.endpoint) == folder
    assert hub.requests == []


def test_the_token_stays_with_the_hub(hub, tmp_path):
    download_model("gpt-oss-20b", to=tmp_path, endpoint=hub.endpoint)
    seen = {name: authorization for name, _, authorization in hub.requests}
    assert seen["original/config.json"] == "Bearer hf_secret"
    assert seen["original/model.safetensors"] is None


def test_a_broken_connection_is_resumed_within_the_run(hub, tmp_path):
    hub.cuts = [100_000]
    folder = download_model("gpt-oss-20b", to=tmp_path, endpoint=hub.endpoint)
    ranges = [asked for name, asked, _ in hub.requests if name.endswith(".safetensors")]
    assert ranges[0] is None
    assert re.fullmatch(r"bytes=\d+-", ranges[1])
    assert 0 < int(ranges[1][6:-1]) <= 100_000
    name = "original/model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == hub.files[name]


@pytest.mark.parametrize("to_folder", [True, False])
def test_the_next_run_continues_where_one_stopped(hub, tmp_path, to_folder):
    to = tmp_path / "to" if to_folder else None
    hub.cuts, hub.failures = [100_000], [503]
    with pytest.raises(CheckpointError, match="HTTP 503"):
        download_model("gpt-oss-20b", to=to, endpoint=hub.endpoint)
    hub.requests.clear()
    folder = download_model("gpt-oss-20b", to=to, endpoint=hub.endpoint)
    ((_, asked, _),) = [r for r in hub.requests if r[0].endswith(".safetensors")]
    assert 0 < int(asked[6:-1]) <= 100_000
    name = "original/model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == hub.files[name]
    assert not [path for path in tmp_path.rglob("*.part")]


def test_damaged_content_is_removed(hub, tmp_path):
    hub.corrupt = True
    with pytest.raises(CheckpointError, match=r"model.safetensors arrived damaged .* again"):
        download_model("gpt-oss-20b", to=tmp_path, endpoint=hub.endpoint)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.part"))
    hub.corrupt = False
    assert Checkpoint.open(download_model("gpt-oss-20b", to=tmp_path, endpoint=hub.endpoint))


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "HF_TOKEN"), (404, "does not offer openai/gpt-oss-20b"), (500, "HTTP 500: try again")],
)
def test_the_hubs_refusals_are_one_sentence(hub, tmp_path, status, message):
    hub.info_status = status
    with pytest.raises(CheckpointError, match=message):
        download_model("gpt-oss-20b", to=tmp_path, endpoint=hub.endpoint)


def test_a_hub_out_of_reach(tmp_path):
    with pytest.raises(CheckpointError, match=r"from http://127.0.0.1:9 stopped .* continues"):
        download_model("gpt-oss-20b", to=tmp_path, endpoint="http://127.0.0.1:9")


def test_a_full_disk_is_noticed_before_the_first_byte(hub, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(hub_download.shutil, "disk_usage", lambda _: usage(9, 9, 1000))
    with pytest.raises(CheckpointError, match="make room, or choose another disk with --to"):
        download_model("gpt-oss-20b", to=tmp_path, endpoint=hub.endpoint)
    assert hub.requests == []


def test_a_disk_that_fills_up_on_the_way(hub, tmp_path, monkeypatch):
    import errno

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        download_model("gpt-oss-20b", to=tmp_path, endpoint=hub.endpoint)


def test_a_folder_that_cannot_be_written(hub, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="not writable: choose another folder with --to"):
        download_model("gpt-oss-20b", to=tmp_path / "file" / "x", endpoint=hub.endpoint)


@pytest.mark.parametrize(
    "name", ["original/../../evil", "original/sub/x", "/original/x", "original\\..\\x"]
)
def test_names_that_lead_elsewhere_are_not_followed(hub, tmp_path, name):
    hub.files[name] = b"evil"
    with contextlib.suppress(CheckpointError):
        download_model("gpt-oss-20b", to=tmp_path / "to", endpoint=hub.endpoint)
    assert b"evil" not in contents(tmp_path).values()


def test_other_models_and_a_missing_extra(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="gpt-oss-20b, gpt-oss-120b"):
        download_model("llama", to=tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(NotInstalled, match=r'pip install "gptoss-harmony\[hub\]"'):
        download_model("gpt-oss-20b", to=tmp_path)


def test_the_command_honours_hf_endpoint(hub, tmp_path):
    code = "import sys; from gptoss_harmony.cli import main; sys.exit(main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", code, "download", "gpt-oss-20b", "--to", str(tmp_path / "to")],
        env=os.environ | {"HF_ENDPOINT": hub.endpoint},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert f"{tmp_path}/to/original: original, 0.00 GB, complete" in result.stdout
    assert "gptoss generate" in result.stdout


def test_the_command_refuses_unknown_models(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["download", "gpt-2"])
    assert exit_.value.code == 2
    assert "gpt-oss-20b" in capsys.readouterr().err
