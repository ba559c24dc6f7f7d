"""What `codex --oss` asks an Ollama or LM Studio server before it talks Responses to it.

Codex asks Ollama for `/api/version` and `/api/tags`, and LM Studio for `/v1/models`; with these
answers both providers work against this server.
"""

from __future__ import annotations

import datetime
import hashlib

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from gptoss_serve.codex_catalog import codex_catalog
from gptoss_serve.models import ModelNames

# The version of Ollama's API whose `/v1/responses` Codex knows to work with.
_OLLAMA_VERSION = "0.13.4"


def local_servers_router(models: ModelNames) -> APIRouter:
    """Routes of the two servers' own APIs."""
    router = APIRouter(tags=["local servers"])

    async def ollama_version() -> Response:
        """Version of Ollama's API that is followed."""
        return JSONResponse({"version": _OLLAMA_VERSION})

    async def ollama_tags() -> Response:
        """The model under all its names, as Ollama lists them."""
        now = datetime.datetime.now(datetime.UTC).isoformat()
        return JSONResponse({"models": [_tag(name, now) for name in models.names]})

    async def lmstudio_models() -> Response:
        """The model under all its names, as LM Studio lists them."""
        length = models.spec.context_length
        data = [
            {"id": name, "object": "model", "type": "llm", "state": "loaded"}
            | {"max_context_length": length, "loaded_context_length": length}
            for name in models.names
        ]
        return JSONResponse({"object": "list", "data": data})

    async def catalog() -> Response:
        """A catalogue for Codex, so that it offers apply_patch."""
        length = models.spec.context_length
        return JSONResponse(codex_catalog(models.names, context_length=length))

    router.add_api_route("/codex/catalog.json", catalog, methods=["GET"])
    router.add_api_route("/api/version", ollama_version, methods=["GET"])
    router.add_api_route("/api/tags", ollama_tags, methods=["GET"])
    router.add_api_route("/api/v0/models", lmstudio_models, methods=["GET"])
    return router


def _tag(name: str, modified_at: str) -> dict[str, object]:
    digest = hashlib.sha256(name.encode()).hexdigest()
    details = {"format": "gptoss", "family": "gptoss", "families": ["gptoss"]}
    return {
        "name": name,
        "model": name,
        "modified_at": modified_at,
        "size": 0,
        "digest": digest,
        "details": {**details, "parent_model": "", "quantization_level": "MXFP4"},
    }
