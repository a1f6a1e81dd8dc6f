"""Service and limits -> the ASGI app: all routes, described for people and programs."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader
from pydantic import BaseModel
from starlette.types import ASGIApp

from pronk.photos.formats import MAX_PIXELS
from pronk.report.page_files import read_page
from pronk.server.gateway import OPEN_PATHS, Access, Admission, Gateway, Meters
from pronk.server.http_errors import HttpError, Problem, explain_errors, refusals
from pronk.server.predict_routes import predict_router
from pronk.server.service import Service
from pronk.server.teach_routes import teach_router
from pronk.server.training_jobs import TrainingRunner
from pronk.server.uploads import MOST_FILES, UploadReader

MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript"}
DESCRIPTION = (
    "Photos in, predictions out. A refusal says what is wrong and what to do: {error, code, hint}. "
    "Where there is too much to do, the answer is 503 with Retry-After."
)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What clients may take.

    Attributes:
        body_bytes: most bytes of one request's body.
        body_seconds: most seconds to send it.
        seconds: most seconds for a whole request.
        waiting: requests that are read, waiting or computed at once. With more, the last in the queue waits longer
            than people do: 48 photos take two cores about half a second.
        held_bytes: most bytes of all bodies together.
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
    trainings: TrainingRunner | None = None,
) -> ASGIApp:
    """Put the server together; without a service's model, nothing is predicted, without trainings, nothing taught."""
    limits, meters = limits or Limits(), Meters()
    admission = Admission(most=limits.waiting, most_bytes=max(limits.held_bytes, limits.body_bytes))
    reader = UploadReader(admission, limits.body_bytes, limits.body_seconds)
    # Redirects would name the server as the client does, and forget a proxy's https.
    app = FastAPI(
        title="pronk", version=version, description=DESCRIPTION, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    explain_errors(app)
    app.include_router(predict_router(service, reader, meters, seconds=limits.seconds))
    app.include_router(teach_router(trainings, service, reader))
    app.include_router(_health_router(service, meters))
    app.include_router(_page_router(app))
    allowed = {"body_bytes": limits.body_bytes, "pixels": MAX_PIXELS, "files": MOST_FILES}

    @app.get("/v1/server", response_model=ServerRecord, tags=["server"])
    async def server() -> dict[str, Any]:
        """Say what the server can do."""
        has_model, can_teach = service.folder is not None, trainings is not None
        return {"version": version, "model": has_model, "teach": can_teach, "limits": allowed}

    # Made when it is first asked for: it takes as long as half of the rest.
    app.openapi = functools.partial(_describe, app, closed=access.token is not None)  # type: ignore[method-assign]
    return Gateway(app, access, admission, service, meters)


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
    files = read_page()

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


def _describe(app: FastAPI, *, closed: bool) -> dict[str, Any]:
    """Return the description, with what refused values really look like; FastAPI describes a form of its own."""
    if app.openapi_schema:
        return app.openapi_schema
    described = FastAPI.openapi(app)
    schemas = described["components"]["schemas"]
    schemas.setdefault("Problem", Problem.model_json_schema())
    if closed:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in described["paths"].items():
        for operation in operations.values():
            _describe_refusals(operation, closed=closed and path not in OPEN_PATHS)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return described


def _describe_refusals(operation: dict[str, Any], *, closed: bool) -> None:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses = operation["responses"]
    if "422" in responses:
        responses["422"] = {"description": "A value cannot be used", "content": content}
    more = {"403": "The request is meant for another server, or another site's page sent it"}
    if "requestBody" in operation:
        more["400"] = "The body cannot be read"
    if closed:
        operation["security"] = [{"token": []}]
        more["401"] = "The token is missing or wrong"
    for status, description in more.items():
        responses.setdefault(status, {"description": description, "content": content})
