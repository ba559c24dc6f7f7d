"""Codex itself: it runs a shell command and applies a patch through our server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptoss_harmony.testing import require

PATCH = "*** Begin Patch\n*** Add File: made.txt\n+hello from the patch\n*** End Patch\n"
REPLIES = [
    "<|channel|>analysis<|message|>Look first.<|end|><|start|>assistant<|channel|>commentary "
    'to=functions.exec_command <|constrain|>json<|message|>{"cmd": "echo ran > ran.txt"}<|call|>',
    "<|channel|>analysis<|message|>Now patch.<|end|><|start|>assistant<|channel|>commentary "
    f"to=functions.apply_patch<|message|>{PATCH}<|call|>",
    "<|channel|>final<|message|>All done.<|return|>",
]


@pytest.fixture
def codex() -> Iterator[Callable[..., Any]]:
    """Run `codex exec` in a fresh repository and a fresh home, which Codex wants outside /tmp."""
    program = shutil.which("codex")
    require(program is not None, "the codex program is not on PATH")
    (Path.home() / ".cache").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=Path.home() / ".cache", prefix="gptoss-codex-test-"))

    def run(
        config: str, *flags: str, within: Sequence[str] = (), **variables: str
    ) -> tuple[list[Any], Path, str]:
        home, work = folder / "home", folder / "work"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(config.replace("{home}", str(home)))
        subprocess.run(["git", "init", "-q", str(work)], check=True)
        environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
        command = [str(program), "exec", "--skip-git-repo-check", "--json", *flags]
        done = subprocess.run(
            [*within, *command, "--dangerously-bypass-approvals-and-sandbox", "Do it"],
            cwd=work,
            env={**environment, "CODEX_HOME": str(home), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return events, work, done.stderr

    yield run
    shutil.rmtree(folder, ignore_errors=True)


QUIET = """
[features]
plugins = false
remote_plugin = false
apps = false
[analytics]
enabled = false
"""


def config_for(base: str, catalog: Path) -> str:
    """Codex's configuration for our server."""
    return f"""
model = "gpt-oss-20b"
model_provider = "local"
model_catalog_json = "{catalog}"
web_search = "disabled"
[model_providers.local]
name = "local"
base_url = "{base}"
wire_api = "responses"
{QUIET}"""


def check_work(events: list[Any], work: Path, errors: str) -> None:
    """The command ran, the patch is applied, the turn is over."""
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    kinds = [item["type"] for item in items if item["type"] != "error"]
    assert kinds == [
        "reasoning",
        "command_execution",
        "reasoning",
        "file_change",
        "agent_message",
    ], (events, errors)
    assert (work / "ran.txt").read_text() == "ran\n"
    assert (work / "made.txt").read_text() == "hello from the patch\n"
    assert events[-1]["type"] == "turn.completed"
    assert events[-1]["usage"]["reasoning_output_tokens"] > 0


@pytest.mark.codex
def test_codex_runs_a_command_and_applies_a_patch(
    serve: Callable[..., Any], codex: Any, tmp_path: Path
) -> None:
    server = serve(REPLIES, aliases=["gpt-oss-20b"])
    catalog = tmp_path / "catalog.json"
    catalog.write_text(httpx.get(f"{server.url}/codex/catalog.json").text)
    check_work(*codex(config_for(f"{server.url}/v1", catalog)))


@pytest.mark.codex
def test_codex_needs_no_other_network(
    serve_process: Callable[..., Any], codex: Any, tmp_path: Path
) -> None:
    """Server and Codex share a network of their own, which leads nowhere."""
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "alone"]
    programs = all(map(shutil.which, ("unshare", "nsenter", "ip", "curl")))
    able = programs and not subprocess.run([*alone, "true"], capture_output=True).returncode
    require(able, "no network namespace can be made here")
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"replies": REPLIES}))
    flags = ("--checkpoint", str(script), "--inference-backend", "scripted")
    server = serve_process(*flags, "--alias", "gpt-oss-20b", within=alone)
    there = ["nsenter", "--target", str(server.pid), "--net"]
    catalog = tmp_path / "catalog.json"
    address = f"{server.url}/codex/catalog.json"
    subprocess.run([*there, "curl", "-sSf", "-o", str(catalog), address], check=True)
    check_work(*codex(config_for(server.base, catalog), within=there))


@pytest.mark.codex
@pytest.mark.parametrize("provider", ["ollama", "lmstudio"])
def test_codex_oss_finds_its_local_server_here(
    serve: Callable[..., Any], codex: Any, provider: str
) -> None:
    server = serve(["<|channel|>final<|message|>Hi.<|return|>"], aliases=["gpt-oss-20b"])
    flags = ("--oss", "--local-provider", provider)
    base = f"{server.url}/v1"
    events, _, errors = codex(f'web_search = "disabled"\n{QUIET}', *flags, CODEX_OSS_BASE_URL=base)
    messages = [e["item"] for e in events if e["type"] == "item.completed"]
    assert messages[-1].get("text") == "Hi.", (events, errors)
