"""Requests of the Teach tab -> changes of the work folder, a training, and a model that predicts from now on."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar

import anyio
from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pronk.errors import DataError, ImageError
from pronk.model.next_photos import choose_next
from pronk.model.predictor import Predictor
from pronk.pools import available_cores
from pronk.server.http_errors import HttpError, refusals
from pronk.server.predict_routes import BODY, PHOTO
from pronk.server.runs import RUN_NAME, RunEntry, find_run, list_runs, pack_run, read_report
from pronk.server.service import Service
from pronk.server.training_jobs import TrainingRunner, TrainingStatus
from pronk.server.uploads import UploadReader
from pronk.server.workspace import MOST_UNLABELLED, NAME_BYTES, PHOTO_ID, PhotoClass
from pronk.storage.places import enclosing

# A report is a page of its own, with its style inside; whatever is in it, nothing runs and nothing is loaded.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
THUMBNAIL_SECONDS = 3600  # an id stands for the photo's content, so the picture never changes
CHUNK_BYTES = 2**18
SHOWN_NAME = 255
SHOWN_AT_ONCE = 12  # photos worth labelling
ClassName = Annotated[str, InPath(min_length=1, max_length=NAME_BYTES, description="The name of a class.")]
PhotoId = Annotated[str, InPath(pattern=f"^{PHOTO_ID}$", description="What adding the photo returned.")]
Count = Annotated[int, Query(ge=1, le=100, description="How many photos to choose.")]
RunName = Annotated[str, InPath(pattern=f"^{RUN_NAME}$", description="The number of a finished run.")]
T = TypeVar("T")


class NewName(BaseModel):
    """The name that a class gets."""

    model_config = ConfigDict(extra="forbid")
    # The schema says roughly what `workspace.find_fault` says in words that help.
    name: str = Field(json_schema_extra={"minLength": 1, "maxLength": NAME_BYTES, "pattern": r'^[^/\\:*?"<>|]+$'})


class TrainRequest(BaseModel):
    """Which network to start from; null takes the server's own choice."""

    model_config = ConfigDict(extra="forbid")
    weights: Literal["imagenet", "offline"] | None = None


@dataclasses.dataclass(frozen=True)
class RefusedPhoto:
    """A photo that was not taken, and why."""

    name: str
    code: str
    message: str
    hint: str


@dataclasses.dataclass(frozen=True)
class AddedPhotos:
    """The ids of the photos that are in the class now, in the order they came, and those that are not."""

    added: tuple[str, ...]
    refused: tuple[RefusedPhoto, ...]


@dataclasses.dataclass(frozen=True)
class WorthLabelling:
    """A photo whose label would teach the model much: what it says, and why it was chosen."""

    id: str
    label: str
    score: float
    second: str | None
    unknown: bool
    why: str


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """How many photos wait for a label, and those of them to label next, the most worthwhile first."""

    waiting: int
    chosen: tuple[WorthLabelling, ...]


@dataclasses.dataclass(frozen=True)
class TeachState:
    """All that the Teach tab shows."""

    classes: tuple[PhotoClass, ...]
    weights: str
    training: TrainingStatus | None
    runs: tuple[RunEntry, ...]


def teach_router(trainings: TrainingRunner | None, service: Service, reader: UploadReader) -> APIRouter:
    """Return the routes under /v1/teach; without a runner, every request is answered with 403.

    Some answers bring a Content-Security-Policy or Cache-Control of their own, which the app must leave as they are.
    """
    endpoints = _Endpoints(trainings, service, reader)
    router = APIRouter(prefix="/v1/teach", tags=["teach"], responses=refusals(401, 403, 422, 507))

    def add(method: str, path: str, endpoint: Callable[..., Any], *statuses: int, **options: Any) -> None:
        known = options.pop("responses", {})
        router.add_api_route(path, endpoint, methods=[method], responses=refusals(*statuses) | known, **options)

    bare: dict[str, Any] = {"status_code": 204, "response_class": Response}
    photos, photo = "/classes/{name}/photos", "/classes/{name}/photos/{photo_id}"
    add("GET", "", endpoints.state)
    add("POST", "/classes", endpoints.create_class, 409, status_code=201)
    add("PATCH", "/classes/{name}", endpoints.rename_class, 404, 409)
    add("DELETE", "/classes/{name}", endpoints.delete_class, 404, 409, **bare)
    add("POST", photos, endpoints.add_photos, 400, 404, 408, 413, 503, openapi_extra={"requestBody": BODY})
    add("GET", photo, endpoints.show_photo, 404, 413, 415, **_file("image/jpeg"))
    add("DELETE", photo, endpoints.delete_photo, 404, **bare)
    body: dict[str, Any] = {"openapi_extra": {"requestBody": BODY}}
    add("GET", "/unlabelled", endpoints.choose_unlabelled, 503)
    add("POST", "/unlabelled", endpoints.add_unlabelled, 400, 408, 413, 503, **body)
    add("DELETE", "/unlabelled", endpoints.clear_unlabelled, **bare)
    add("GET", "/unlabelled/{photo_id}", endpoints.show_unlabelled, 404, 413, 415, **_file("image/jpeg"))
    add("DELETE", "/unlabelled/{photo_id}", endpoints.delete_unlabelled, 404, **bare)
    add("POST", "/unlabelled/{photo_id}/label", endpoints.label_photo, 404, **bare)
    add("POST", "/train", endpoints.train, 409, status_code=202)
    add("POST", "/stop", endpoints.stop, 409, status_code=202)
    add("GET", "/runs/{run}/report", endpoints.show_report, 404, **_file("text/html"))
    add("GET", "/runs/{run}/download", endpoints.download, 404, **_file("application/zip"))
    add("POST", "/runs/{run}/use", endpoints.use, 404, 409)
    return router


class _Endpoints:
    """The endpoints and what they share; reading and writing happens in threads."""

    def __init__(self, trainings: TrainingRunner | None, service: Service, reader: UploadReader) -> None:
        self._trainings = trainings
        self._service = service
        self._reader = reader
        # A photo of 50 megapixels takes 150 MB while it is decoded, so only a few are at a time.
        self._decoders = anyio.CapacityLimiter(available_cores())
        self._choosing = anyio.Lock()  # each takes all cores

    async def state(self) -> TeachState:
        """Tell the classes and their photos, how far a training is, and the finished runs."""
        return await run_in_threadpool(self._state, self._open())

    async def create_class(self, new: NewName) -> PhotoClass:
        """Make a class."""
        return await run_in_threadpool(self._open().workspace.create, new.name)

    async def rename_class(self, name: ClassName, new: NewName) -> PhotoClass:
        """Rename a class; not while a training reads its photos."""
        trainings = self._open()
        trainings.check_idle()
        return await run_in_threadpool(trainings.workspace.rename, name, new.name)

    async def delete_class(self, name: ClassName) -> None:
        """Delete a class with its photos; not while a training reads them."""
        trainings = self._open()
        trainings.check_idle()
        await run_in_threadpool(trainings.workspace.delete, name)

    async def add_photos(self, name: ClassName, request: Request) -> AddedPhotos:
        """Add photos to a class: one as it is, or several as a form. One that is there already counts as added."""
        return await self._add(name, request)

    async def add_unlabelled(self, request: Request) -> AddedPhotos:
        """Add photos to those that wait for a label, as to a class."""
        workspace = self._open().workspace
        if len(await run_in_threadpool(workspace.list_unlabelled)) >= MOST_UNLABELLED:
            message = f"{MOST_UNLABELLED:,} photos wait for a label already"
            raise HttpError(422, message, code="usage", hint="label some, or clear them; pronk next takes any number")
        return await self._add(None, request)

    async def choose_unlabelled(self, count: Count = SHOWN_AT_ONCE) -> Unlabelled:
        """Choose photos that are worth labelling next, as `pronk next` does, with the model that predicts."""
        workspace, predictor = self._open().workspace, self._service.model.predictor
        async with self._choosing:
            return await run_in_threadpool(_choose, predictor, workspace.list_unlabelled(), count)

    async def label_photo(self, photo_id: PhotoId, new: NewName) -> None:
        """Put a photo that waited for a label into a class."""
        await run_in_threadpool(self._open().workspace.label, photo_id, new.name)

    async def show_unlabelled(self, photo_id: PhotoId) -> Response:
        """Show a photo that waits for a label, as one of a class."""
        return await self._show(None, photo_id)

    async def delete_unlabelled(self, photo_id: PhotoId) -> None:
        """Delete a photo that waits for a label."""
        await run_in_threadpool(self._open().workspace.remove, None, photo_id)

    async def clear_unlabelled(self) -> None:
        """Delete all photos that wait for a label."""
        await run_in_threadpool(self._open().workspace.clear_unlabelled)

    async def _add(self, name: str | None, request: Request) -> AddedPhotos:
        workspace = self._open().workspace
        added: list[str] = []
        refused: list[RefusedPhoto] = []
        async with self._reader.read(request) as uploads:
            for photo in uploads.photos:
                try:
                    added.append(await self._decode(functools.partial(workspace.add, name, photo.data)))
                except ImageError as error:
                    shown = photo.name.encode("utf-8", "backslashreplace").decode()[:SHOWN_NAME]
                    refused.append(RefusedPhoto(shown, error.reason.value, str(error), error.hint))
        return AddedPhotos(tuple(added), tuple(refused))

    async def show_photo(self, name: ClassName, photo_id: PhotoId) -> Response:
        """Show a photo, at most 160 pixels wide and high."""
        return await self._show(name, photo_id)

    async def _show(self, name: str | None, photo_id: str) -> Response:
        workspace = self._open().workspace
        picture = await self._decode(lambda: workspace.thumbnail(name, photo_id))
        headers = {"Cache-Control": f"private, max-age={THUMBNAIL_SECONDS}, immutable"}
        return Response(picture, media_type="image/jpeg", headers=headers)

    async def delete_photo(self, name: ClassName, photo_id: PhotoId) -> None:
        """Delete a photo."""
        await run_in_threadpool(self._open().workspace.remove, name, photo_id)

    async def train(self, asked: TrainRequest | None = None) -> TrainingStatus:
        """Start a training on all classes."""
        return await run_in_threadpool(self._open().start, asked.weights if asked else None)

    async def stop(self) -> TrainingStatus:
        """Ask the training to stop; it may go on for some seconds."""
        return self._open().stop()

    async def show_report(self, run: RunName) -> Response:
        """Show the report of a finished run."""
        workspace = self._open().workspace
        page = await run_in_threadpool(lambda: read_report(find_run(workspace.runs, run)))
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    async def download(self, run: RunName) -> Response:
        """Take a run folder along; unpacked, it is what `pronk predict` takes as MODEL."""
        workspace = self._open().workspace
        file = await run_in_threadpool(lambda: pack_run(find_run(workspace.runs, run)))
        size = file.seek(0, 2)
        headers = {"Content-Disposition": f'attachment; filename="pronk-run-{run}.zip"', "Content-Length": str(size)}
        return StreamingResponse(_chunks(file), media_type="application/zip", headers=headers)

    async def use(self, run: RunName) -> dict[str, Any]:
        """Predict with the model of a finished run from now on."""
        runs = self._open().workspace.runs
        return (await self._service.replace(await run_in_threadpool(find_run, runs, run))).record

    def _open(self) -> TrainingRunner:
        if self._trainings is None:
            message = "this server has no work folder, so nothing can be taught"
            raise HttpError(403, message, code="not_allowed", hint="start it as: pronk serve MODEL --work DIR")
        return self._trainings

    async def _decode(self, task: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(task, limiter=self._decoders)

    def _state(self, trainings: TrainingRunner) -> TeachState:
        folder, workspace = self._service.folder, trainings.workspace
        around = enclosing(folder) if folder else set()  # a run's model, or an export of it
        runs = list_runs(workspace.runs)
        runs = [dataclasses.replace(run, in_use=workspace.runs / run.name in around) for run in runs]
        # Where files of this machine lie is nobody else's business.
        weights = Path(trainings.weights).name
        return TeachState(tuple(workspace.classes()), weights, trainings.status(), tuple(runs))


def _choose(predictor: Predictor, photos: Sequence[Path], count: int) -> Unlabelled:
    try:
        chosen = choose_next(predictor, photos, count=count) if photos else []
    except DataError:  # the model was trained with all of them
        chosen = []
    told = [
        WorthLabelling(Path(one["path"]).name, *(one[name] for name in ("label", "score", "second", "unknown", "why")))
        for one in chosen
    ]
    return Unlabelled(len(photos), tuple(told))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _file(kind: str) -> dict[str, Any]:
    return {"response_class": Response, "responses": {200: {"content": {kind: PHOTO}}}}
