"""The Open Inference Protocol, version 2: pixels in, probabilities out, as KServe's and Triton's clients speak it.

Its tensors may follow the JSON as plain bytes (the binary tensor data extension), which such clients use by default.
See https://github.com/kserve/open-inference-protocol.
"""

import asyncio
import dataclasses
import json
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from pronk.server.errors import HttpError, refusals
from pronk.server.predicting import Reading
from pronk.server.service import Model, Service

OUTPUTS = ("probabilities", "features")
LENGTH_HEADER = "inference-header-content-length"
HINT = 'send one input {"name": "image", "datatype": "UINT8", "shape": [n, size, size, 3], ...}'
MOST_PHOTOS = 256
TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"const": "image"},
        "shape": {
            "type": "array",
            "prefixItems": [{"type": "integer", "minimum": 1, "maximum": MOST_PHOTOS}],
            "items": {"type": "integer", "minimum": 1},
            "minItems": 4,
            "maxItems": 4,
        },
        "datatype": {"const": "UINT8"},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
}
OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"enum": list(OUTPUTS)}, "parameters": {"type": "object"}},
}
BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "inputs": {"type": "array", "items": TENSOR, "minItems": 1, "maxItems": 1},
                    "outputs": {"type": "array", "items": OUTPUT},
                    "parameters": {"type": "object"},
                },
            }
        },
    },
}


@dataclasses.dataclass(frozen=True)
class Question:
    """An inference request.

    Attributes:
        pixels: uint8 [n, size, size, 3].
        id: given back in the answer; empty where the client gave none.
        outputs: wanted names, each with whether its data shall follow as bytes.
    """

    pixels: np.ndarray
    id: str
    outputs: dict[str, bool]


def v2_router(service: Service, reading: Reading, *, version: str) -> APIRouter:
    """Return the routes of the protocol."""
    router = APIRouter(tags=["open inference protocol"])

    @router.get("/v2")
    async def server() -> dict[str, Any]:
        """Name the server and what it speaks."""
        return {"name": "pronk", "version": version, "extensions": ["binary_tensor_data"]}

    @router.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """Say that the server runs."""
        return {"live": True}

    @router.get("/v2/health/ready", responses=refusals(503))
    async def ready() -> dict[str, bool]:
        """Say whether the server answers."""
        _check_ready(service)
        return {"ready": True}

    @router.get("/v2/models/{name}/versions/{number}", responses=refusals(404, 503), include_in_schema=False)
    @router.get("/v2/models/{name}", responses=refusals(404, 503))
    async def metadata(request: Request, name: str) -> dict[str, Any]:
        """Describe the inputs and outputs of the model; its name is that of /v1/model."""
        return _describe(_find(service, request, name))

    @router.get("/v2/models/{name}/versions/{number}/ready", responses=refusals(404, 503), include_in_schema=False)
    @router.get("/v2/models/{name}/ready", responses=refusals(404, 503))
    async def model_ready(request: Request, name: str) -> dict[str, Any]:
        """Say whether the model answers."""
        _check_ready(service)
        return {"name": _find(service, request, name).record["name"], "ready": True}

    @router.post("/v2/models/{name}/versions/{number}/infer", responses=refusals(503), include_in_schema=False)
    @router.post(
        "/v2/models/{name}/infer",
        responses=refusals(400, 404, 408, 413, 503),
        openapi_extra={"requestBody": BODY},
    )
    async def infer(request: Request, name: str) -> Response:
        """Run pixels through the model: input `image`, outputs `probabilities` and `features`.

        The pixels may follow the JSON as bytes, and the outputs come so: the protocol's binary tensor data extension.
        """
        with reading.gate.enter() as hold:
            try:
                async with asyncio.timeout(reading.seconds):
                    body = await reading.read(request, hold)
                    model, length = _find(service, request, name), request.headers.get(LENGTH_HEADER)
                    return await service.work(lambda: _infer(model, body, length))
            except TimeoutError as error:
                message = f"the request was not done within {reading.seconds:g} s"
                raise HttpError(503, message, code="busy", hint="send fewer photos at once") from error

    return router


def parse_question(body: bytes, length: str | None, *, size: int) -> Question:
    """Read an inference request.

    Args:
        body: JSON, perhaps followed by the pixels as they are.
        length: of the JSON, where pixels follow it.
        size: of the square that the model sees.

    Raises:
        HttpError: 400, with what is wrong.

    Example:
        >>> tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [[[[1, 2, 3]]]]}
        >>> parse_question(json.dumps({"inputs": [tensor]}).encode(), None, size=1).pixels.tolist()
        [[[[1, 2, 3]]]]
    """
    try:
        cut = len(body) if length is None else int(length)
        if not 0 < cut <= len(body):
            raise ValueError(f"{LENGTH_HEADER} is {cut} of {len(body)} bytes")
        record = json.loads(body[:cut])
        inputs = record["inputs"]
        if len(inputs) != 1 or inputs[0]["name"] != "image" or inputs[0]["datatype"] != "UINT8":
            raise ValueError("the one input is image, of UINT8")
        pixels = _read_pixels(inputs[0], body[cut:], size=size)
        name = record.get("id", "")
        if not isinstance(name, str):
            raise ValueError("the id must be a text")
        return Question(pixels, name, _read_outputs(record))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise HttpError(400, f"no inference request: {error!s:.200}", code="usage", hint=HINT) from error


def _read_pixels(tensor: dict[str, Any], rest: bytes, *, size: int) -> np.ndarray:
    shape = tuple(tensor["shape"])
    if len(shape) != 4 or type(shape[0]) is not int or not 0 < shape[0] <= MOST_PHOTOS or shape[1:] != (size, size, 3):
        raise ValueError(f"the shape must be [1 to {MOST_PHOTOS}, {size}, {size}, 3]. Got {shape!s:.100}")
    if "data" not in tensor:
        follows = tensor["parameters"]["binary_data_size"]
        if follows != len(rest) or len(rest) != np.prod(shape):
            raise ValueError(f"{len(rest)} bytes follow, {np.prod(shape)} make the shape")
        return np.frombuffer(rest, np.uint8).reshape(shape)
    values = _flatten(tensor["data"])
    if len(values) != np.prod(shape):
        raise ValueError(f"{len(values)} numbers in the data, {np.prod(shape)} make the shape")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _flatten(data: Any, *, depth: int = 4) -> bytes:
    """Return the numbers in a list, or in lists in it; any other value is refused."""
    # NumPy would make as much room for each value as the longest text among them takes.
    if not isinstance(data, list):
        raise TypeError("the data must be a list")
    if depth > 1 and data and isinstance(data[0], list):
        return b"".join(_flatten(row, depth=depth - 1) for row in data)
    try:
        return bytes(data)
    except (TypeError, ValueError) as error:
        raise ValueError("the data must be whole numbers from 0 to 255") from error


def _read_outputs(record: dict[str, Any]) -> dict[str, bool]:
    everything = _is_binary(record, "binary_data_output", former=False)
    wanted, outputs = record.get("outputs", []), {}
    if not isinstance(wanted, list):
        raise TypeError("the outputs must be a list")
    for output in wanted:
        if output["name"] not in OUTPUTS:
            raise ValueError(f"no output {output['name']!r:.50}; there are {', '.join(OUTPUTS)}")
        outputs[output["name"]] = _is_binary(output, "binary_data", former=everything)
    return outputs or dict.fromkeys(OUTPUTS, everything)


def _is_binary(holder: dict[str, Any], key: str, *, former: bool) -> bool:
    value = holder.get("parameters", {}).get(key, former)
    if not isinstance(value, bool):
        raise TypeError(f"{key} must be true or false")
    return value


def _infer(model: Model, body: bytes, length: str | None) -> Response:
    question = parse_question(body, length, size=model.record["image"]["size"])
    # One photo at a time, as everywhere: its answer does not depend on its neighbours.
    rows = [model.predictor.runtime.run(photo[None]) for photo in question.pixels]
    described, tail = [], b""
    for name, is_binary in question.outputs.items():
        values = np.concatenate([getattr(row, name) for row in rows]).astype("<f4")
        tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if is_binary:
            described.append(tensor | {"parameters": {"binary_data_size": values.nbytes}})
            tail += values.tobytes()
        else:
            described.append(tensor | {"data": values.ravel().tolist()})
    answer = {"model_name": model.record["name"], "model_version": "1", "outputs": described}
    head = json.dumps(answer | ({"id": question.id} if question.id else {})).encode()
    if not tail:
        return Response(head, media_type="application/json")
    return Response(head + tail, media_type="application/octet-stream", headers={LENGTH_HEADER: str(len(head))})


def _describe(model: Model) -> dict[str, Any]:
    size, classes = model.record["image"]["size"], len(model.record["classes"])
    d = model.predictor.runtime.shapes["features"][0]
    return {
        "name": model.record["name"],
        "versions": ["1"],
        "platform": model.record["runtime"],
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, size, size, 3]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
            {"name": "features", "datatype": "FP32", "shape": [-1, d]},
        ],
    }


def _find(service: Service, request: Request, name: str) -> Model:
    model, number = service.model, request.path_params.get("number", "1")
    if name != model.record["name"] or number != "1":
        hint = f"it is called {model.record['name']}, version 1"
        raise HttpError(404, f"no model {name!r:.100}, version {number:.20}", code="not_found", hint=hint)
    return model


def _check_ready(service: Service) -> None:
    if not service.is_ready:
        what = "the server is about to stop" if service.is_leaving else "no model is open"
        raise HttpError(503, what, code="not_ready", hint="ask again, or another server")
