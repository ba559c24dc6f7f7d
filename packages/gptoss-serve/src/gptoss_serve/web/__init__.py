"""The web page at `/`: one file, no build step, no request to anywhere else."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

# The page may load nothing from elsewhere and may not be put into a frame.
_POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def web_router() -> APIRouter:
    """The route of the page."""
    router = APIRouter(tags=["web"])
    text = resources.files("gptoss_serve.web").joinpath("index.html").read_text("utf-8")

    async def page() -> Response:
        """The chat page."""
        return HTMLResponse(text, headers={"content-security-policy": _POLICY})

    router.add_api_route("/", page, methods=["GET"], include_in_schema=False)
    return router
