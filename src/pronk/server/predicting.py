"""Photos over HTTP -> predictions, in the form that Hugging Face's clients read."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pronk.server.errors import HttpError, refusals
from pronk.server.limits import Gate, read_body
from pronk.server.measuring import Meters
from pronk.server.service import Answer, Model, Service
from pronk.server.uploads import MOST_FILES, Batch, Upload, parse_uploads

PREDICT_PATH = "/v1/predict"
SMALL = 65_536  # bytes of a form that are parsed at once; larger ones would keep the loop from others


class Score(BaseModel):
    """One class of a photo."""

    label: str
    score: float


class PhotoError(BaseModel):
    """Why a photo cannot be used."""

    code: str
    message: str
    hint: str


class Heatmap(BaseModel):
    """What spoke for a class: a PNG as a data address, and where it lies in the upright photo, as shares of it."""

    label: str
    image: str
    box: tuple[float, float, float, float]


class Record(BaseModel):
    """What `pronk predict` says of a photo, the time it took, and the heat map where it was asked for."""

    path: str
    label: str | None
    score: float | None
    scores: list[Score]
    unknown: bool
    distance: float | None
    error: PhotoError | None
    milliseconds: float
    heatmap: Heatmap | None


class Interval(BaseModel):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


class ImageShape(BaseModel):
    """What the network sees: a square, and how a photo becomes one."""

    size: int
    fit: Literal["crop", "pad", "squash"]


class Weights(BaseModel):
    """What the network began with."""

    name: str
    sha256: str


class ModelRecord(BaseModel):
    """What the model is, and how good."""

    name: str
    classes: list[str]
    image: ImageShape
    runtime: str
    accuracy: Interval | None
    photos: dict[str, int] | None
    trained: str
    weights: Weights
    unknown: bool
    coverage: float | None
    calibrated: bool
    heatmaps: bool


class Reading:
    """How requests with photos are read: one at a time where the machine is busy, never more than it can hold.

    Args:
        gate: bounds what is read and computed at once.
        body_bytes: most bytes of a body.
        body_seconds: that a client may take to send it.
        seconds: that a whole request may take.
    """

    def __init__(self, gate: Gate, *, body_bytes: int, body_seconds: float, seconds: float) -> None:
        self.gate = gate
        self.body_bytes = body_bytes
        self.body_seconds = body_seconds
        self.seconds = seconds

    async def read(self, request: Request, hold: Any) -> bytes:
        """Read the body under all limits, or raise HttpError."""
        return await read_body(request, hold, most=self.body_bytes, seconds=self.body_seconds)

    async def read_photos(self, request: Request, hold: Any) -> Batch:
        """Read the photos in the body under all limits, or raise HttpError."""
        body, kind = await self.read(request, hold), request.headers.get("content-type", "")
        if len(body) <= SMALL or not kind.lower().startswith(("multipart/", "application/json")):
            return parse_uploads(kind, body)
        return await run_in_threadpool(parse_uploads, kind, body)


PHOTO = {"schema": {"type": "string", "format": "binary"}}
PHOTOS = {"type": "array", "items": PHOTO["schema"], "minItems": 1, "maxItems": MOST_FILES}
FORM = {"schema": {"type": "object", "required": ["photo"], "properties": {"photo": PHOTOS}}}
TOP_K = {"type": ["integer", "null"], "minimum": 1}
INPUTS = {
    "schema": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "inputs": {"type": "string", "format": "byte", "minLength": 1},
            "parameters": {"type": ["object", "null"], "properties": {"top_k": TOP_K}},
        },
    }
}
BODY = {
    "required": True,
    "content": {"image/*": PHOTO, "multipart/form-data": FORM, "application/json": INPUTS},
}


def predict_router(service: Service, reading: Reading, meters: Meters) -> APIRouter:
    """Return the routes for photos and the model."""
    router = APIRouter(tags=["predict"])

    @router.post(
        PREDICT_PATH,
        response_model=list[Record] | list[Score],
        responses=refusals(400, 408, 413, 415, 422, 503),
        openapi_extra={"requestBody": BODY},
    )
    async def predict(
        request: Request,
        top: Annotated[int | None, Query(ge=1, le=10_000, description="Most likely classes to name.")] = None,
        explain: Annotated[bool, Query(description="Add heat maps, and answer with records.")] = False,
    ) -> Response:
        """Predict photos.

        The body is one photo, a form with several, or JSON with one in base64. One photo is answered with its classes
        and scores, the most likely first, and with the headers Pronk-Unknown and Pronk-Distance; several, or one with
        explain, with a record each.
        """
        with reading.gate.enter() as hold:
            try:
                async with asyncio.timeout(reading.seconds):
                    batch = await reading.read_photos(request, hold)
                    # One after the other, so that a request with many photos does not push others aside.
                    model = service.model  # one for all of them, also where it is replaced meanwhile
                    answers = [await _answer(service, model, meters, upload, explain) for upload in batch.uploads]
            except TimeoutError as error:
                message = f"the photos were not done within {reading.seconds:g} s"
                raise HttpError(503, message, code="busy", hint="send fewer at once") from error
        top = batch.top or top
        # A request without any photo is refused, also where it asks for records.
        if (explain and batch.uploads != (Upload("", b""),)) or len(answers) > 1:
            return JSONResponse([_printable(answer.record(top)) for answer in answers])
        return _answer_one(answers[0], top)

    @router.get("/v1/model", response_model=ModelRecord, responses=refusals(503))
    async def model() -> dict[str, Any]:
        """Say what the model is, and how good."""
        return service.model.record

    @router.post("/v1/model/reload", response_model=ModelRecord, responses=refusals(409, 503))
    async def reload() -> dict[str, Any]:
        """Open the model again from its folder; where it fails its self-test, the former one stays."""
        return (await service.replace()).record

    return router


async def _answer(service: Service, model: Model, meters: Meters, upload: Upload, explain: bool) -> Answer:
    answer = await service.predict(model, upload.data, upload.name, explain=explain)
    prediction = answer.prediction
    meters.photos.labels("error" if prediction.error else "unknown" if prediction.unknown else "known").inc()
    return answer


def _answer_one(answer: Answer, top: int | None) -> Response:
    prediction = answer.prediction
    if prediction.error:
        raise prediction.error
    headers: Mapping[str, str] = {"pronk-unknown": str(prediction.unknown).lower()}
    if prediction.distance is not None:
        headers = {**headers, "pronk-distance": f"{prediction.distance:.6g}"}
    return JSONResponse(prediction.record(top)["scores"], headers=headers)


def _printable(record: dict[str, Any]) -> dict[str, Any]:
    # The name of a file may be no UTF-8; JSON can say so only in escapes that many readers refuse.
    return record | {"path": record["path"].encode("utf-8", "backslashreplace").decode("utf-8")}
