"""A model that is open, and can be replaced while it answers: photos in, predictions and heat maps out."""

import asyncio
import base64
import contextlib
import ctypes
import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pronk.errors import ImageError, ModelError, PronkError
from pronk.model.description import describe_bundle
from pronk.model.heat_maps import class_activation_map, draw_heat, seen_box
from pronk.model.predictor import Prediction, Predictor
from pronk.photos.decoding import load_photo
from pronk.pools import available_cores
from pronk.server.http_errors import HttpError

M_MMAP_THRESHOLD = -3  # as in glibc's malloc.h
LARGE_BYTES = 2**21  # decoding a usual photo takes less; large ones are converted in bands of 4 MB


@dataclasses.dataclass(frozen=True)
class OpenModel:
    """A model that answers, and what is said of it."""

    folder: Path
    predictor: Predictor
    record: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PhotoAnswer:
    """The answer to one photo, and how long it took without waiting; the hint belongs to its error.

    The heat map is {label, image, box}, where it was asked for and the photo can be used.
    """

    prediction: Prediction
    hint: str
    heatmap: dict[str, Any] | None
    milliseconds: float

    def record(self, top: int | None) -> dict[str, Any]:
        """Return the fields that `pronk predict` writes, and those that only the server knows."""
        record = self.prediction.record(top)
        if record["error"]:
            record["error"] |= {"hint": self.hint}
        return record | {"milliseconds": round(self.milliseconds, 2), "heatmap": self.heatmap}


class Service:
    """Holds the model and the threads that answer.

    A photo is decoded and predicted by one thread, one photo at a time: a batch of photos from several clients would
    take each of them as long as all together, and a photo's answer would depend on its neighbours. See
    docs/serving.md for what was measured. There is one thread for each core, where no other number is named.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self._model: OpenModel | None = None
        self._threads = ThreadPoolExecutor(threads or available_cores(), thread_name_prefix="photo")
        self._replacing = threading.Lock()
        self.is_leaving = False

    @property
    def is_ready(self) -> bool:
        """Whether photos can be predicted, and new clients are welcome."""
        return self._model is not None and not self.is_leaving

    @property
    def model(self) -> OpenModel:
        """The open model, or HttpError 503 where there is none."""
        if self._model is None:
            raise HttpError(503, "no model is open", code="not_ready", hint="train one under Teach, or name a MODEL")
        return self._model

    @property
    def folder(self) -> Path | None:
        """Folder of the open model, as it was named."""
        return self._model.folder if self._model else None

    def open(self, folder: Path) -> OpenModel:
        """Open a model, let it prove itself with its golden photos, and only then answer with it.

        Requests that are under way keep the model they began with; after a ModelError the former one stays.
        """
        with self._replacing:
            predictor = Predictor.load(folder)
            # Loading proves it only where this machine has not seen it; here a wrong answer would reach everybody.
            if self._model is not None:
                predictor.prove()
            size = predictor.bundle.size
            predictor.predict_proba(np.zeros((1, size, size, 3), np.uint8))  # the first photo would wait longest
            self._model = OpenModel(
                folder, predictor, describe_bundle(predictor.bundle) | {"heatmaps": _has_heat(predictor)}
            )
            _call_allocator("malloc_trim", 0)  # opening leaves some 20 MB of free memory with the process
            return self._model

    async def replace(self, folder: Path | None = None) -> OpenModel:
        """Open a model while the former one goes on answering; None opens what lies in its folder now.

        HttpError 409 where it does not open, 503 where none was named yet.
        """
        folder = folder or self.model.folder
        try:
            return await asyncio.to_thread(self.open, folder)
        except PronkError as error:
            hint = f"{error.hint}; the former model goes on answering" if self._model else error.hint
            raise HttpError(409, str(error), code="conflict", hint=hint) from error

    async def predict(self, model: OpenModel, data: bytes, name: str = "", *, explain: bool = False) -> PhotoAnswer:
        """Predict one photo; where the caller gives up before it has begun, it is left undone.

        Args:
            model: one that `model` returned.
            data: encoded bytes of the photo.
            name: file name, as the client calls it.
            explain: add a heat map for the most likely class.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, _answer, model, data, name, explain)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)


def _has_heat(predictor: Predictor) -> bool:
    # A model of the first format may be whole but for the weights of its head.
    size = predictor.bundle.size
    try:
        predictor.runtime.run(np.zeros((1, size, size, 3), np.uint8), heat=True)
    except ModelError:
        return False
    return True


def _answer(model: OpenModel, data: bytes, name: str, explain: bool) -> PhotoAnswer:
    started, predictor = time.perf_counter(), model.predictor
    heatmap, hint = None, ""
    try:
        image, pixels = load_photo(
            data, size=predictor.bundle.size, fit=predictor.bundle.fit, version=predictor.bundle.decoding
        )
        explain = explain and model.record["heatmaps"]
        outputs = predictor.runtime.run(pixels[None], heat=explain)
        prediction = predictor.answer(name, outputs)
        if explain:
            heatmap = _draw(model, outputs.heat[0], prediction, image.size)
    except ImageError as error:
        prediction, hint = Prediction(name, predictor.classes, None, error), error.hint
    return PhotoAnswer(prediction, hint, heatmap, 1000 * (time.perf_counter() - started))


def _draw(model: OpenModel, heat: np.ndarray, prediction: Prediction, size: tuple[int, int]) -> dict[str, Any]:
    assert prediction.probabilities is not None, "no photo without an error lacks them"
    bundle, index = model.predictor.bundle, int(prediction.probabilities.argmax())
    picture = draw_heat(class_activation_map(heat, index), side=bundle.size)
    uri = f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"
    return {"label": bundle.classes[index], "image": uri, "box": list(seen_box(size, bundle.fit))}


def return_large_blocks() -> None:
    """Let the C library take each large block from the system by itself, and give it back once it is free.

    glibc begins so, but when one was freed it keeps blocks of that size in store, for each thread apart: after two
    threads have decoded a picture of 49 megapixels each, one after the other, 400 MB would stay with the server.
    """
    _call_allocator("mallopt", M_MMAP_THRESHOLD, LARGE_BYTES)


def _call_allocator(name: str, *arguments: int) -> None:
    # Other C libraries need none of this; Windows takes no None.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)
