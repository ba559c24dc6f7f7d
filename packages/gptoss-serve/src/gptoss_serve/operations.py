"""`/v1/models`, `/health`, `/version`, `/metrics`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from gptoss_serve.limits import Admission
from gptoss_serve.metrics import Metrics
from gptoss_serve.models import ModelNames


def operations_router(models: ModelNames, metrics: Metrics, admission: Admission) -> APIRouter:
    """Routes for operators and for clients that look around."""
    router = APIRouter(tags=["operations"])

    async def health() -> Response:
        """Alive, and whether it takes new requests."""
        if admission.draining:
            return JSONResponse({"status": "draining"}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def show_version() -> Response:
        """Version of this server."""
        return JSONResponse({"version": own_version()})

    async def show_metrics() -> Response:
        """Counters for Prometheus."""
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    async def list_models() -> Response:
        """The model under all its names."""
        return JSONResponse(models.listing())

    async def get_model(model_id: str) -> Response:
        """The model under one name."""
        return JSONResponse(models.entry(models.resolve(model_id)))

    router.add_api_route("/health", health, methods=["GET"])
    router.add_api_route("/version", show_version, methods=["GET"])
    router.add_api_route("/metrics", show_metrics, methods=["GET"])
    router.add_api_route("/v1/models", list_models, methods=["GET"])
    router.add_api_route("/v1/models/{model_id:path}", get_model, methods=["GET"])
    return router


def own_version() -> str:
    """Version of the installed wheel."""
    try:
        return version("gptoss-serve")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"
