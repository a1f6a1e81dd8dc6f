"""Service and limits -> the ASGI app: all routes, and every error as the words of the command line."""

import dataclasses
import functools
import logging
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, PackageLoader
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp

from pronk.errors import PronkError
from pronk.photos.decoding import MAX_PIXELS
from pronk.server.errors import HttpError, Problem, problem, refusals, to_http
from pronk.server.guard import OPEN_PATHS, Access, Guard
from pronk.server.limits import RETRY_SECONDS, Gate, Porch
from pronk.server.measuring import Meters
from pronk.server.predicting import PREDICT_PATH, Reading, predict_router
from pronk.server.service import Service
from pronk.server.teaching import teach_router
from pronk.server.tutor import Tutor
from pronk.server.uploads import MOST_FILES

logger = logging.getLogger(__name__)
PAGE = Path(__file__).with_name("page")
MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript"}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What clients may take.

    Attributes:
        body_bytes: of one request.
        body_seconds: to send it.
        seconds: for a whole request.
        waiting: requests that are read, waiting or computed at once. With more, the last in the queue waits longer
            than people do: 48 photos take two cores about half a second.
        held_bytes: of all bodies together.
    """

    body_bytes: int = 10_000_000
    body_seconds: float = 20.0
    seconds: float = 30.0
    waiting: int = 48
    held_bytes: int = 32_000_000


class ServerRecord(BaseModel):
    """What the page asks first."""

    version: str
    model: bool
    teach: bool
    limits: dict[str, int]


def make_app(
    service: Service,
    *,
    access: Access,
    limits: Limits | None = None,
    version: str = "0",
    tutor: Tutor | None = None,
) -> ASGIApp:
    """Put the server together.

    Args:
        service: that answers.
        access: who may ask.
        limits: what they may take; None takes the defaults.
        version: of pronk.
        tutor: of the folder to teach in; None where there is none.

    Example:
        >>> app = make_app(Service(threads=1), access=Access("127.0.0.1"))
    """
    limits, meters = limits or Limits(), Meters()
    gate = Gate(most=limits.waiting, most_bytes=max(limits.held_bytes, limits.body_bytes))
    reading = Reading(gate, body_bytes=limits.body_bytes, body_seconds=limits.body_seconds, seconds=limits.seconds)
    # Redirects would name the server as the client does, and forget a proxy's https.
    app = FastAPI(
        title="pronk",
        version=version,
        docs_url=None,
        redoc_url=None,
        description=DESCRIPTION,
        redirect_slashes=False,
    )
    app.add_exception_handler(PronkError, _explain)
    app.add_exception_handler(HTTPException, _explain_starlette)
    app.add_exception_handler(RequestValidationError, _explain_validation)
    app.add_exception_handler(Exception, _explain_fault)
    app.include_router(predict_router(service, reading, meters))
    app.include_router(_health_router(service, meters))
    app.include_router(_page_router(app))

    async def use_run(folder: Path) -> dict[str, Any]:
        return (await service.replace(folder)).record

    app.include_router(teach_router(tutor, use_run, lambda: service.folder, reading))

    @app.get("/v1/server", response_model=ServerRecord, tags=["server"])
    async def server() -> dict[str, Any]:
        """Say what the server can do."""
        allowed = {"body_bytes": limits.body_bytes, "pixels": MAX_PIXELS, "files": MOST_FILES}
        return {"version": version, "model": service.folder is not None, "teach": tutor is not None, "limits": allowed}

    # Made when it is first asked for: it takes as long as half of the rest.
    app.openapi = functools.partial(_describe, app, closed=access.token is not None)  # type: ignore[method-assign]
    return Guard(Porch(app, gate, PREDICT_PATH), access=access, service=service, meters=meters)


DESCRIPTION = (
    "Photos in, predictions out. A refusal says what is wrong and what to do: {error, code, hint}. "
    "Where there is too much to do, the answer is 503 with Retry-After."
)


def _health_router(service: Service, meters: Meters) -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/healthz")
    async def healthz() -> dict[str, bool]:
        """Say that the server runs."""
        return {"ok": True}

    @router.get("/readyz", responses=refusals(503))
    async def readyz() -> dict[str, bool]:
        """Say whether photos can be predicted; false too once the server is about to stop."""
        if not service.is_ready:
            what = "the server is about to stop" if service.is_leaving else "no model is open"
            raise HttpError(503, what, code="not_ready", hint="ask again, or another server")
        return {"ok": True}

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Give the numbers that Prometheus reads."""
        meters.ready.set(service.is_ready)
        return Response(meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _page_router(app: FastAPI) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    # Read once: nothing but these files is ever served, whatever a path says.
    files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES}

    @router.get("/")
    async def index() -> Response:
        return Response(files["index.html"], media_type=MEDIA_TYPES[".html"])

    @router.get("/page/{name}")
    async def page(name: str) -> Response:
        if name not in files:
            raise HttpError(404, f"no file {name!r:.100}", code="not_found")
        return Response(files[name], media_type=MEDIA_TYPES[Path(name).suffix])

    @router.get("/docs")
    async def docs() -> Response:
        environment = Environment(loader=PackageLoader("pronk.server"), autoescape=True)
        return HTMLResponse(environment.get_template("docs.html").render(api=app.openapi()))

    return router


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, PronkError)
    refusal = to_http(error)
    headers = {"retry-after": str(RETRY_SECONDS)} if refusal.status == 503 else {}
    # What is left of the body would be read to its end for nothing.
    headers |= {"connection": "close"} if refusal.status in (408, 413) else {}
    return JSONResponse(problem(refusal), refusal.status, headers)


async def _explain_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "not_allowed"}.get(error.status_code, "usage")
    message = f"{HTTPStatus(error.status_code).phrase}: {request.method} {request.scope['path']}"
    refusal = HttpError(error.status_code, message[:200], code=code, hint="see /docs for what there is")
    headers = error.headers
    if error.status_code == 405:
        # Starlette names the methods of one route; others may have the same address.
        route = getattr(request.scope.get("route"), "path", "")
        methods = request.app.openapi()["paths"].get(route, {})
        headers = {"Allow": ", ".join(map(str.upper, methods))} if methods else headers
    return JSONResponse(problem(refusal), refusal.status, headers)


async def _explain_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
    return JSONResponse(problem(HttpError(422, found[:500], code="usage", hint="see /docs for what there is")), 422)


async def _explain_fault(request: Request, error: Exception) -> Response:
    # uvicorn would say it among strangers' broken requests, which are no news.
    logger.error("%s %r", request.method, request.scope["path"], exc_info=error)
    hint = "report it with what the server's terminal shows"
    return JSONResponse(problem(HttpError(500, "a fault of the server's own", code="internal", hint=hint)), 500)


def _describe(app: FastAPI, *, closed: bool) -> dict[str, Any]:
    """Return the description, with what refused values really look like; FastAPI describes a form of its own."""
    if app.openapi_schema:
        return app.openapi_schema
    described = FastAPI.openapi(app)
    schemas = described["components"]["schemas"]
    schemas.setdefault("Problem", Problem.model_json_schema())
    if closed:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in described["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            if "422" in answers:
                answers["422"] = {"description": "A value cannot be used", "content": content}
            more = {"403": "The request is meant for another server, or another site's page sent it"}
            if "requestBody" in operation:
                more["400"] = "The body cannot be read"
            if closed and path not in OPEN_PATHS:
                operation["security"] = [{"token": []}]
                more["401"] = "The token is missing or wrong"
            for status, description in more.items():
                answers.setdefault(status, {"description": description, "content": content})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return described
