"""Photos over HTTP -> predictions, in the form that Hugging Face's clients read."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pronk.server.gateway import PREDICT_PATH, Meters
from pronk.server.http_errors import HttpError, refusals
from pronk.server.runs import Accuracy
from pronk.server.service import PhotoAnswer, Service
from pronk.server.uploads import MOST_FILES, Upload, UploadReader


class ClassScore(BaseModel):
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


class PhotoRecord(BaseModel):
    """What `pronk predict` says of a photo, the time it took, and the heat map where it was asked for."""

    path: str
    label: str | None
    score: float | None
    scores: list[ClassScore]
    unknown: bool
    distance: float | None
    error: PhotoError | None
    milliseconds: float
    heatmap: Heatmap | None


class ImageShape(BaseModel):
    """What the network sees: a square, and how a photo becomes one."""

    size: int
    fit: Literal["crop", "pad", "squash"]


class WeightsRecord(BaseModel):
    """What the network began with."""

    name: str
    sha256: str


class ModelRecord(BaseModel):
    """What the model is, and how good."""

    name: str
    classes: list[str]
    image: ImageShape
    runtime: str
    accuracy: Accuracy | None
    photos: dict[str, int] | None
    trained: str
    weights: WeightsRecord
    unknown: bool
    coverage: float | None
    rest_class: str | None
    calibrated: bool
    heatmaps: bool


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
BODY = {"required": True, "content": {"image/*": PHOTO, "multipart/form-data": FORM, "application/json": INPUTS}}


def predict_router(service: Service, reader: UploadReader, meters: Meters, *, seconds: float) -> APIRouter:
    """Return the routes for photos and the model; a whole request may take that many seconds."""
    router = APIRouter(tags=["predict"])

    @router.post(
        PREDICT_PATH,
        response_model=list[PhotoRecord] | list[ClassScore],
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
        try:
            async with asyncio.timeout(seconds), reader.read(request) as uploads:
                model = service.model  # one for all of them, also where it is replaced meanwhile
                # One after the other, so that a request with many photos does not push others aside.
                answers = []
                for photo in uploads.photos:
                    answers.append(await service.predict(model, photo.data, photo.name, explain=explain))
                    found = answers[-1].prediction
                    meters.photos.labels("error" if found.error else "unknown" if found.unknown else "known").inc()
        except TimeoutError as error:
            message = f"the photos were not done within {seconds:g} s"
            raise HttpError(503, message, code="busy", hint="send fewer at once") from error
        top = uploads.top or top
        # A request without any photo is refused, also where it asks for records.
        if (explain and uploads.photos != (Upload("", b""),)) or len(answers) > 1:
            return JSONResponse([_printable(answer.record(top)) for answer in answers])
        return _answer_one(answers[0], top)

    _add_model_routes(router, service)
    return router


def _add_model_routes(router: APIRouter, service: Service) -> None:
    @router.get("/v1/model", response_model=ModelRecord, responses=refusals(503))
    async def model() -> dict[str, Any]:
        """Say what the model is, and how good."""
        return service.model.record

    @router.post("/v1/model/reload", response_model=ModelRecord, responses=refusals(409, 503))
    async def reload() -> dict[str, Any]:
        """Open the model again from its folder; where it fails its self-test, the former one stays."""
        return (await service.replace()).record


def _answer_one(answer: PhotoAnswer, top: int | None) -> Response:
    prediction = answer.prediction
    if prediction.error:
        raise prediction.error
    headers = {"pronk-unknown": str(prediction.unknown).lower()}
    if prediction.distance is not None:
        headers["pronk-distance"] = f"{prediction.distance:.6g}"
    return JSONResponse(prediction.record(top)["scores"], headers=headers)


def _printable(record: dict[str, Any]) -> dict[str, Any]:
    # The name of a file may not be UTF-8; JSON can say so only in escapes that many readers refuse.
    return record | {"path": record["path"].encode("utf-8", "backslashreplace").decode("utf-8")}
