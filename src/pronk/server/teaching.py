"""Requests of the Teach tab -> changes of the work folder, a training, and a model that predicts from now on."""

import dataclasses
import functools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar

import anyio
from fastapi import APIRouter
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pronk.errors import ImageError
from pronk.pools import available_cores
from pronk.server.child import Training
from pronk.server.errors import HttpError, refusals
from pronk.server.lessons import PHOTO_ID, Lesson
from pronk.server.names import NAME_BYTES
from pronk.server.predicting import BODY, PHOTO, Reading
from pronk.server.results import RUN_NAME, Run, find_run, list_runs, pack_run, read_report
from pronk.server.tutor import Tutor
from pronk.storage.places import enclosing

# A report is a page of its own, with its style inside; whatever is in it, nothing runs and nothing is loaded.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
THUMBNAIL_SECONDS = 3600  # an id stands for the photo's content, so the picture never changes
CHUNK_BYTES = 2**18
SHOWN_NAME = 255
NO_WORK = "this server has no work folder, so nothing can be taught"
ClassName = Annotated[str, InPath(min_length=1, max_length=NAME_BYTES, description="The name of a class.")]
PhotoId = Annotated[str, InPath(pattern=f"^{PHOTO_ID}$", description="What adding the photo returned.")]
RunName = Annotated[str, InPath(pattern=f"^{RUN_NAME}$", description="The number of a finished run.")]
T = TypeVar("T")


class NewName(BaseModel):
    """The name that a class gets."""

    model_config = ConfigDict(extra="forbid")
    # The schema says roughly what `names.find_fault` says in words that help.
    name: str = Field(json_schema_extra={"minLength": 1, "maxLength": NAME_BYTES, "pattern": r'^[^/\\:*?"<>|]+$'})


class TrainRequest(BaseModel):
    """Which network to start from; null takes the server's own choice."""

    model_config = ConfigDict(extra="forbid")
    weights: Literal["imagenet", "offline"] | None = None


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A photo that was not taken, and why."""

    name: str
    code: str
    message: str
    hint: str


@dataclasses.dataclass(frozen=True)
class Added:
    """The ids of the photos that are in the class now, in the order they came, and those that are not."""

    added: tuple[str, ...]
    refused: tuple[Refusal, ...]


@dataclasses.dataclass(frozen=True)
class Lecture:
    """All that the Teach tab shows."""

    classes: tuple[Lesson, ...]
    weights: str
    training: Training | None
    runs: tuple[Run, ...]


def teach_router(
    tutor: Tutor | None,
    use_run: Callable[[Path], Awaitable[dict[str, Any]]],
    in_use: Callable[[], Path | None],
    reading: Reading,
) -> APIRouter:
    """Return the routes under /v1/teach, to be included in an app.

    Errors leave them as `PronkError`, which the app turns into answers (see `errors.to_http`). Some answers bring a
    Content-Security-Policy or Cache-Control of their own, which the app must leave as they are.

    Args:
        tutor: of the work folder, which the caller holds open; None answers every request with 403.
        use_run: opens the model of a run folder, predicts with it from now on, and returns its record.
        in_use: returns the folder that was opened last: a run, its model, or any other; None where none is.
        reading: reads the photos in a request's body, and bounds how many of them are held at once.

    Example:
        >>> import asyncio
        >>> from fastapi import FastAPI
        >>> from pronk.server.limits import Gate
        >>> app = FastAPI()
        >>> reading = Reading(Gate(most=4, most_bytes=10**7), body_bytes=10**7, body_seconds=20, seconds=30)
        >>> app.include_router(teach_router(None, asyncio.sleep, lambda: None, reading))
    """
    teaching = _Teaching(tutor, use_run, in_use, reading)
    general = refusals(401, 403, 422, 507)
    router = APIRouter(prefix="/v1/teach", tags=["teach"], responses=general)

    def add(method: str, path: str, endpoint: Callable[..., Any], *statuses: int, **options: Any) -> None:
        known = options.pop("responses", {})
        router.add_api_route(path, endpoint, methods=[method], responses=refusals(*statuses) | known, **options)

    bare: dict[str, Any] = {"status_code": 204, "response_class": Response}
    add("GET", "", teaching.look)
    add("POST", "/classes", teaching.create_class, 409, status_code=201)
    add("PATCH", "/classes/{name}", teaching.rename_class, 404, 409)
    add("DELETE", "/classes/{name}", teaching.delete_class, 404, 409, **bare)
    photos, photo = "/classes/{name}/photos", "/classes/{name}/photos/{photo_id}"
    add("POST", photos, teaching.add_photos, 400, 404, 408, 413, 503, openapi_extra={"requestBody": BODY})
    add("GET", photo, teaching.show_photo, 404, 413, 415, **_file("image/jpeg"))
    add("DELETE", photo, teaching.delete_photo, 404, **bare)
    add("POST", "/train", teaching.train, 409, status_code=202)
    add("POST", "/stop", teaching.stop, 409, status_code=202)
    add("GET", "/runs/{run}/report", teaching.show_report, 404, **_file("text/html"))
    add("GET", "/runs/{run}/download", teaching.download, 404, **_file("application/zip"))
    add("POST", "/runs/{run}/use", teaching.use, 404, 409)
    return router


class _Teaching:
    """The endpoints and what they share; reading and writing happens in threads."""

    def __init__(
        self,
        tutor: Tutor | None,
        use_run: Callable[[Path], Awaitable[dict[str, Any]]],
        in_use: Callable[[], Path | None],
        reading: Reading,
    ) -> None:
        self._tutor = tutor
        self._use_run = use_run
        self._in_use = in_use
        self._reading = reading
        # A photo of 50 megapixels takes 150 MB while it is looked at, so only a few are at a time.
        self._eyes = anyio.CapacityLimiter(available_cores())

    async def look(self) -> Lecture:
        """Tell the classes and their photos, how far a training is, and the finished runs."""
        return await run_in_threadpool(self._look, self._open())

    async def create_class(self, new: NewName) -> Lesson:
        """Make a class."""
        return await run_in_threadpool(self._open().lessons.create, new.name)

    async def rename_class(self, name: ClassName, new: NewName) -> Lesson:
        """Rename a class; not while a training reads its photos."""
        tutor = self._open()
        tutor.check_idle()
        return await run_in_threadpool(tutor.lessons.rename, name, new.name)

    async def delete_class(self, name: ClassName) -> None:
        """Delete a class with its photos; not while a training reads them."""
        tutor = self._open()
        tutor.check_idle()
        await run_in_threadpool(tutor.lessons.delete, name)

    async def add_photos(self, name: ClassName, request: Request) -> Added:
        """Add photos to a class: one as it is, or several as a form. One that is there already counts as added."""
        lessons = self._open().lessons
        added: list[str] = []
        refused: list[Refusal] = []
        with self._reading.gate.enter() as hold:
            batch = await self._reading.read_photos(request, hold)
            for upload in batch.uploads:
                try:
                    added.append(await self._with_eyes(functools.partial(lessons.add, name, upload.data)))
                except ImageError as error:
                    shown = upload.name.encode("utf-8", "backslashreplace").decode()[:SHOWN_NAME]
                    refused.append(Refusal(shown, error.reason.value, str(error), error.hint))
        return Added(tuple(added), tuple(refused))

    async def show_photo(self, name: ClassName, photo_id: PhotoId) -> Response:
        """Show a photo, at most 160 pixels wide and high."""
        lessons = self._open().lessons
        picture = await self._with_eyes(lambda: lessons.thumbnail(name, photo_id))
        headers = {"Cache-Control": f"private, max-age={THUMBNAIL_SECONDS}, immutable"}
        return Response(picture, media_type="image/jpeg", headers=headers)

    async def delete_photo(self, name: ClassName, photo_id: PhotoId) -> None:
        """Delete a photo."""
        await run_in_threadpool(self._open().lessons.remove, name, photo_id)

    async def train(self, wish: TrainRequest | None = None) -> Training:
        """Start a training on all classes."""
        return await run_in_threadpool(self._open().start, wish.weights if wish else None)

    async def stop(self) -> Training:
        """Ask the training to stop; it may go on for some seconds."""
        return self._open().stop()

    async def show_report(self, run: RunName) -> Response:
        """Show the report of a finished run."""
        lessons = self._open().lessons
        page = await run_in_threadpool(lambda: read_report(find_run(lessons.runs, run)))
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    async def download(self, run: RunName) -> Response:
        """Take a run folder along; unpacked, it is what `pronk predict` takes as MODEL."""
        lessons = self._open().lessons
        file = await run_in_threadpool(lambda: pack_run(find_run(lessons.runs, run)))
        size = file.seek(0, 2)
        headers = {"Content-Disposition": f'attachment; filename="pronk-run-{run}.zip"', "Content-Length": str(size)}
        return StreamingResponse(_chunks(file), media_type="application/zip", headers=headers)

    async def use(self, run: RunName) -> dict[str, Any]:
        """Predict with the model of a finished run from now on."""
        lessons = self._open().lessons
        return await self._use_run(await run_in_threadpool(find_run, lessons.runs, run))

    def _open(self) -> Tutor:
        if self._tutor is None:
            raise HttpError(403, NO_WORK, code="not_allowed", hint="start it as: pronk serve MODEL --work DIR")
        return self._tutor

    async def _with_eyes(self, task: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(task, limiter=self._eyes)

    def _look(self, tutor: Tutor) -> Lecture:
        folder, lessons = self._in_use(), tutor.lessons
        around = enclosing(folder) if folder else ()  # it may be a run's model, or an export
        runs = [dataclasses.replace(run, in_use=lessons.runs / run.name in around) for run in list_runs(lessons.runs)]
        # Where files of this machine lie is nobody else's business.
        return Lecture(tuple(lessons.classes()), Path(tutor.weights).name, tutor.look(), tuple(runs))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _file(kind: str) -> dict[str, Any]:
    return {"response_class": Response, "responses": {200: {"content": {kind: PHOTO}}}}
