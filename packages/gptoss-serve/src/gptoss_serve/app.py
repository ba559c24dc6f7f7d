"""The application: every API of ours over one engine.

```
app = create_app(open_engine("auto", "nano"))
uvicorn.run(app, port=8000)
```
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from gptoss_harmony import Engine, HarmonyError
from gptoss_serve.completions.routes import completions_router
from gptoss_serve.completions.service import ChatService
from gptoss_serve.completions.text import TextService
from gptoss_serve.errors import InvalidRequest, NotFound, ServeError, as_serve_error
from gptoss_serve.guard import Guard
from gptoss_serve.limits import Admission
from gptoss_serve.local_servers import local_servers_router
from gptoss_serve.metrics import Metrics
from gptoss_serve.models import ModelNames
from gptoss_serve.openapi import documented
from gptoss_serve.operations import operations_router, own_version
from gptoss_serve.responses.routes import responses_router
from gptoss_serve.responses.service import ResponseService
from gptoss_serve.responses.store import ResponseStore
from gptoss_serve.session import Session
from gptoss_serve.settings import ServerSettings
from gptoss_serve.toolbox import Toolbox
from gptoss_serve.watch import Watch
from gptoss_serve.web import web_router

_log = logging.getLogger("gptoss_serve")


def create_app(
    engine: Engine | Session,
    *,
    settings: ServerSettings | None = None,
    toolbox: Toolbox | None = None,
    store: ResponseStore | None = None,
    model_name: str | None = None,
    aliases: Sequence[str] = (),
    watch: Watch | None = None,
) -> FastAPI:
    """Build the application; the caller opens and closes the engine.

    Args:
        engine: any engine, or a session over something else, which is closed at the end.
        settings: None takes the defaults.
        toolbox: the tools that run here; None has none.
        store: of responses; None keeps nothing.
        model_name: what `/v1/models` lists first; None takes the engine's model id.
        aliases: other names of the model.
        watch: hears of requests, answers and calls of tools, such as `tracing.Tracing`.
    """
    settings = settings or ServerSettings()
    session = engine if isinstance(engine, Session) else Session(engine)
    session.watch = watch or session.watch
    engine = session.engine
    models = ModelNames(engine.spec, name=model_name, aliases=aliases)
    admission = Admission(running=settings.max_running, waiting=settings.max_waiting)
    metrics = Metrics(engine, admission)
    toolbox = toolbox or Toolbox()
    service = ResponseService(
        session, toolbox=toolbox, models=models, admission=admission, settings=settings, store=store
    )
    chat = ChatService(
        session, toolbox=toolbox, models=models, admission=admission, settings=settings
    )
    text = TextService(session, models=models, admission=admission)

    app = FastAPI(
        title="gptoss",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(session, service, admission, settings, toolbox),
    )
    app.state.admission = admission
    app.include_router(responses_router(service, settings))
    app.include_router(completions_router(chat, text, settings))
    app.include_router(operations_router(models, metrics, admission))
    app.include_router(local_servers_router(models))
    app.include_router(web_router())
    document = documented(app, own_version(), with_keys=bool(settings.keys))
    app.openapi = document  # type: ignore[method-assign]
    _add_error_handlers(app)
    _add_layers(app, settings, metrics, session.watch)
    return app


def _lifespan(
    session: Session,
    service: ResponseService,
    admission: Admission,
    settings: ServerSettings,
    toolbox: Toolbox,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What happens before the first request and after the last."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.open()
        tidying = asyncio.create_task(toolbox.keep_tidy())
        yield
        # The server has stopped listening; background answers may still run.
        if not await admission.drain(settings.drain_seconds):
            _log.warning("answers still ran after %g s; stopping them", settings.drain_seconds)
        await service.close()
        await session.close()
        tidying.cancel()
        await asyncio.wait([tidying])

    return lifespan


def _add_layers(app: FastAPI, settings: ServerSettings, metrics: Metrics, watch: Watch) -> None:
    """What every request passes through, the outermost last: refusals have CORS headers too."""
    app.add_middleware(Guard, settings=settings, metrics=metrics, watch=watch)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["x-request-id", "retry-after"],
        )


def _add_error_handlers(app: FastAPI) -> None:
    """Every error has OpenAI's shape."""

    async def known(_: Request, error: Exception) -> Response:
        failure = as_serve_error(error)
        headers = {"retry-after": "1"} if failure.status in (429, 503) else None
        return JSONResponse(failure.body(), status_code=failure.status, headers=headers)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        failure: ServeError = InvalidRequest(str(error.detail))
        if error.status_code == 404:
            failure = NotFound(f"there is nothing at {request.url.path}")
        headers = {"allow": _allowed(request)} if error.status_code == 405 else error.headers
        return JSONResponse(failure.body(), status_code=error.status_code, headers=headers)

    async def unknown(_: Request, error: Exception) -> Response:
        _log.error("a request failed", exc_info=error)
        return JSONResponse(as_serve_error(error).body(), status_code=500)

    app.add_exception_handler(HarmonyError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unknown)


def _allowed(request: Request) -> str:
    """The methods of the path that the request names, as they are documented."""
    route = request.scope.get("route")
    methods = request.app.openapi()["paths"].get(getattr(route, "path_format", ""), {"get": {}})
    return ", ".join(sorted(method.upper() for method in methods))
