"""Our OpenAPI document is true: schemathesis asks what it allows and much that it forbids."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptoss_harmony.testing import require

Serve = Callable[..., Any]

# What the schema of a body cannot say is refused with a 400 all the same: that there must be
# something to answer, that `top_logprobs` goes with `logprobs`, that an id is one of ours.
BEYOND_SCHEMAS = "positive_data_acceptance"


def test_every_reference_leads_somewhere_and_every_operation_says_what_it_gives(
    serve: Serve,
) -> None:
    document = httpx.get(f"{serve().url}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for part in text.split('"$ref": "')[1:]:
        reference = part.partition('"')[0]
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["responses"]["200"]["content"], (method, path)
            assert "422" not in operation["responses"], "errors here are 400"
            if "requestBody" in operation:
                assert {"400", "413", "429", "503"} <= set(operation["responses"])
    create = document["paths"]["/v1/responses"]["post"]["responses"]["200"]["content"]
    assert set(create) == {"application/json", "text/event-stream"}
    assert len(schemas["Response"]["required"]) == 31


def test_keys_are_in_the_document_where_they_are_asked_for(serve: Serve) -> None:
    from gptoss_serve import ServerSettings

    server = serve(settings=ServerSettings(keys=("k",), drain_seconds=1))
    key = {"authorization": "Bearer k"}
    document = httpx.get(f"{server.url}/openapi.json", headers=key).json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "401" in document["paths"]["/v1/models"]["get"]["responses"]
    assert "security" not in document["paths"]["/health"]["get"]


def test_a_wrong_method_is_told_the_right_ones(serve: Serve) -> None:
    server = serve()
    for path, allowed in (
        ("/v1/responses", "POST"),
        ("/v1/responses/resp_1", "DELETE, GET"),
        ("/v1/responses/compact", "POST"),
        ("/v1/models/openai/gpt-oss-20b", "GET"),
        ("/", "GET"),
        ("/v1/models", "GET"),
    ):
        answer = httpx.put(f"{server.url}{path}")
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.slow
def test_schemathesis_finds_nothing(victim: Any, tmp_path: Path) -> None:
    program = shutil.which("st", path=str(Path(sys.executable).parent)) or shutil.which("st")
    require(program is not None, "schemathesis is not installed")
    assert program is not None
    command = [program, "run", f"{victim.url}/openapi.json", "--no-color"]
    command += ["--exclude-checks", BEYOND_SCHEMAS, "--max-time", "15", "--request-timeout", "120"]
    command += ["--warnings", "off", "--generation-deterministic"]
    # Its health checks measure how fast the machine generates examples.
    command += ["--suppress-health-check", "all"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    victim.is_well()
