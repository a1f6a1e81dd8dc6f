"""Bundle + photos -> predictions; the command line, evaluation and Python all go through here."""

import contextlib
import dataclasses
import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from PIL import Image

from pronk.analysis.calibration import SetScores
from pronk.dataset.listing import list_files
from pronk.errors import COPY_AGAIN, DataError, ImageError, ModelError, StorageError
from pronk.model.bundle import MODEL_FILE, Bundle, open_bundle, open_runtime
from pronk.model.formats.runtimes import Outputs, Runtime, describe_runtime
from pronk.photos.decoding import convert_picture, fit_pixels, load_pixels
from pronk.pools import run_in_order
from pronk.storage.archives import is_archive
from pronk.storage.cache import CacheKind, default_cache
from pronk.storage.files import digest_file, write_atomically
from pronk.storage.places import UNKNOWN
from pronk.storage.remote import find_matches, is_address, is_folder, is_remote, to_path
from pronk.storage.sources import read_ahead

Photo = Path | str | bytes | np.ndarray | Image.Image | IO[bytes]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says about one photo.

    Attributes:
        path: as it was given.
        classes: in the order of the probabilities.
        probabilities: float32 [C]; None where the photo cannot be used.
        error: why it cannot be used.
        distance: how far its features lie from those the model was trained with, where the model knows.
        threshold: distance beyond which it is unknown.
        sets: answers with several classes, where the model can.

    Example:
        >>> Prediction("a.jpg", ("cat", "dog"), np.array([0.25, 0.75], np.float32)).label
        'dog'
    """

    path: str
    classes: tuple[str, ...]
    probabilities: np.ndarray | None
    error: ImageError | None = None
    distance: float | None = None
    threshold: float | None = None
    sets: SetScores | None = None

    @property
    def top(self) -> str | None:
        """The most likely class."""
        return None if self.probabilities is None else self.classes[int(self.probabilities.argmax())]

    @property
    def unknown(self) -> bool:
        """Whether the photo shows something that the model never saw."""
        return self.distance is not None and self.threshold is not None and self.distance > self.threshold

    @property
    def label(self) -> str | None:
        """The most likely class, or `unknown`."""
        return UNKNOWN if self.unknown else self.top

    @property
    def score(self) -> float | None:
        """The probability of the most likely class."""
        return None if self.probabilities is None else float(self.probabilities.max())

    def choose_set(self, coverage: float) -> list[str]:
        """Return the classes of which one is right with the stated probability, most likely first.

        All of them where the model knows too few validation photos to promise less.
        """
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")
        if self.sets is not None:
            order = self.sets.choose(self.probabilities, coverage)
        return [self.classes[i] for i in order]

    def record(self, top: int | None = None, *, unknown: str = "keep", coverage: float | None = None) -> dict[str, Any]:
        """Return the fields that `pronk predict` writes.

        Args:
            top: number of most likely classes among the scores; None means all.
            unknown: `keep` labels photos of other things `unknown`; `off` gives them the most likely class too.
            coverage: adds `set`, the classes of which one is right with this probability.
        """
        scores = []
        if self.probabilities is not None:
            order = np.argsort(-self.probabilities, kind="stable")[:top]
            scores = [{"label": self.classes[i], "score": float(self.probabilities[i])} for i in order]
        error = self.error and {"code": self.error.reason.value, "message": str(self.error)}
        return {
            "path": self.path,
            "label": self.top if unknown == "off" else self.label,
            "score": self.score,
            "scores": scores,
            **({} if coverage is None else {"set": self.choose_set(coverage)}),
            "unknown": self.unknown and unknown != "off",
            "distance": self.distance,
            "error": error or None,
        }


class Predictor:
    """An opened model; `Predictor.load` makes it."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self.bundle = bundle
        self.runtime = runtime

    @classmethod
    def load(cls, model: Path | str, *, cache: Path | None = None) -> "Predictor":
        """Open a run folder, a `model/` or an export.

        Checksums are verified each time; on the first load with a new runtime or processor the golden photos are
        predicted and compared too.

        Raises:
            ModelError: if the model is missing, damaged or fails its self-test.
        """
        bundle = open_bundle(model)
        predictor = cls(bundle, open_runtime(bundle))
        predictor._verify_once(cache or default_cache())
        return predictor

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.bundle.classes

    def predict_proba(self, pixels: np.ndarray) -> np.ndarray:
        """Return probabilities, float32 [n, C], for uint8 pixels [n, size, size, 3]."""
        return self.runtime.run(pixels).probabilities

    def predict(self, sources: Photo | Iterable[Photo]) -> list[Prediction]:
        """Predict photos in order; an unusable one carries its error.

        A photo is a path, the bytes of a file, an open file, a Pillow picture, or an array, uint8 [h, w, 3]; a single
        one will do as well as a list.

        Raises:
            DataError: if something is none of these, such as an address.
        """
        photos: Iterable[Any] = [sources] if is_photo(sources) else sources  # type: ignore[assignment]
        return list(self.stream(photos))

    def predict_one(self, source: Photo) -> Prediction:
        """Predict one photo, as `predict`."""
        return self._predict(source, self._load)

    def stream(
        self, sources: Iterable[Any], *, load: Callable[[Any], np.ndarray] | None = None
    ) -> Iterator[Prediction]:
        """Predict photos in order, on all cores, holding only a few in memory.

        Args:
            sources: paths or bytes, or whatever `load` takes.
            load: turns a source into pixels, uint8 [size, size, 3], or raises ImageError.
        """
        return run_in_order(lambda source: self._predict(source, load or self._load), read_ahead(sources))

    def answer(self, path: str, outputs: Outputs) -> Prediction:
        """Say what the runtime's outputs for one photo mean; ModelError if they are not finite numbers."""
        unknown = self.bundle.unknown
        try:
            distance = float(unknown.novelty.distance(outputs.features)[0]) if unknown else None
        except ValueError as error:
            raise ModelError(f"{self.bundle.model_path} gives no usable answer: {error}", hint=COPY_AGAIN) from error
        return Prediction(
            path,
            self.classes,
            outputs.probabilities[0],
            distance=distance,
            threshold=unknown.threshold if unknown else None,
            sets=self.bundle.sets,
        )

    def verify(self) -> list[dict[str, Any]]:
        """Predict the golden photos and compare: one {file, difference, ok} per photo."""
        checks = []
        golden = self.bundle.golden()
        predictions = self.stream(self.bundle.folder / name for name in golden)
        for (name, expected), prediction in zip(golden.items(), predictions, strict=True):
            if prediction.probabilities is None:
                raise ModelError(f"golden photo {name}: {prediction.error}", hint=COPY_AGAIN)
            difference = float(np.abs(prediction.probabilities - np.array(expected)).max())
            checks.append({"file": name, "difference": difference, "ok": difference <= self.bundle.format.tolerance})
        return checks

    def prove(self) -> None:
        """Raise a ModelError where golden photos come out otherwise than where the model was trained."""
        problem = self.find_problem(self.verify())
        if problem:
            raise problem

    def find_problem(self, checks: Sequence[dict[str, Any]]) -> ModelError | None:
        """Return what to raise where golden photos, checked by `verify`, come out otherwise than they should."""
        wrong = [check["file"] for check in checks if not check["ok"]]
        if not wrong:
            return None
        worst = max(check["difference"] for check in checks)
        return ModelError(
            f"the model {self.bundle.folder} fails its self-test here: {', '.join(wrong)}: the largest difference is "
            f"{worst:.2g}, allowed {self.bundle.format.tolerance}",
            hint=f"it was made with {dict(self.bundle.versions)}; install these versions, or train again (see pronk "
            f"verify {self.bundle.folder})",
        )

    def _load(self, source: Photo) -> np.ndarray:
        data = read_photo(source)
        if isinstance(data, Image.Image):
            return fit_pixels(data, size=self.bundle.size, fit=self.bundle.fit)
        return load_pixels(data, size=self.bundle.size, fit=self.bundle.fit, version=self.bundle.decoding)

    def _predict(self, source: Any, load: Callable[[Any], np.ndarray]) -> Prediction:
        names = (getattr(source, name, None) for name in ("path", "name", "filename"))
        path = os.fspath(source) if isinstance(source, str | os.PathLike) else str(next(filter(None, names), ""))
        path = str(source) if is_remote(source) else path
        try:
            pixels = load(source)
        except ImageError as error:
            return Prediction(path, self.classes, None, error)
        # One photo at a time: several threads then use all cores, and a photo's result depends on nothing else.
        return self.answer(path, self.runtime.run(pixels[None]))

    def _verify_once(self, cache: Path) -> None:
        model = digest_file(self.bundle.folder / MODEL_FILE)
        engine = self.bundle.format.engine
        assert engine is not None, "open_runtime has refused a model that has none"
        key = hashlib.sha256(f"{model}:{describe_runtime(engine().module)}".encode()).hexdigest()
        marker = CacheKind.VERIFIED.within(cache) / key[:32]
        if marker.exists():
            return
        self.prove()
        with contextlib.suppress(StorageError):  # then the next load checks again
            write_atomically(marker, b"", durable=False)


def is_photo(source: object) -> bool:
    """Tell whether something is one photo, not a list of them."""
    is_single = isinstance(source, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)
    is_array = isinstance(source, np.ndarray) and source.ndim < 4
    return is_single or is_array or is_remote(source) or hasattr(source, "read")


def read_photo(source: Photo) -> Path | bytes | Image.Image:
    """Return what is to be decoded, or a picture that is decoded already, upright and in RGB.

    Raises:
        DataError: if it is no photo; ImageError if it is a picture that cannot be read.

    Example:
        >>> read_photo("https://example.org/cat.jpg")
        Traceback (most recent call last):
        pronk.errors.DataError: 'https://example.org/cat.jpg' is an address, not a file
    """
    if isinstance(source, str) and is_address(source):  # it may come from a stranger, whom nothing is fetched for
        raise DataError(f"{source!r} is an address, not a file", hint="pass upath.UPath(address), or the bytes of it")
    if isinstance(source, str | os.PathLike):
        return Path(source)
    if is_remote(source):
        return cast(Path, source)
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, Image.Image):
        return convert_picture(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise DataError(
                f"an array must be uint8 [height, width, 3]. Got {source.dtype} {list(source.shape)}",
                hint="in RGB, from 0 to 255",
            )
        return Image.fromarray(source)
    content = source.read() if hasattr(source, "read") else None
    if not isinstance(content, bytes):
        raise DataError(
            f"{type(source).__name__} is no photo",
            hint="pass a path, bytes, a file opened with 'rb', a Pillow picture or an array",
        )
    return content


def names_archive(argument: str) -> bool:
    """Tell whether an argument names a zip or tar file."""
    try:
        return is_archive(to_path(argument))
    except ValueError:  # an impossible name
        return False


def _expand_address(address: str) -> list[Path]:
    place = to_path(address)
    try:
        if "*" in address:
            return find_matches(address)
        return [place / name for name in list_files(place)] if is_folder(place) else [place]
    except OSError:
        return [place]  # its row says why it cannot be reached


def expand_paths(arguments: Sequence[str], lines: Iterable[str] = ()) -> list[Path]:
    """Turn files, folders, patterns and `-` into the list of photos they mean.

    Args:
        arguments: as typed.
        lines: stands in for `-`, one path per line.

    Raises:
        DataError: naming the folders and patterns without any file.
    """
    paths: list[Path] = []
    missing = []
    for argument in arguments:
        if argument == "-":
            found = [to_path(line.rstrip("\r\n")) for line in lines if line.strip()]
        elif os.path.isdir(argument) or names_archive(argument):  # noqa: PTH112 - says no to impossible names
            found = [to_path(argument) / name for name in list_files(to_path(argument))]
        elif is_address(argument):
            found = _expand_address(argument)
        elif not os.path.lexists(argument) and glob.has_magic(argument):
            found = sorted(map(Path, glob.glob(argument, recursive=True)))  # noqa: PTH207 - patterns may be absolute
        else:
            found = [Path(argument)]  # one that is not there gets a row with its error, like any other
        if not found:
            missing.append(argument)
        paths += found
    if missing:
        raise DataError(f"no photo at {', '.join(map(repr, missing))}", hint="check the spelling, or quote the pattern")
    return paths
