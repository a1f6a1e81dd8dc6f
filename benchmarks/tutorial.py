"""split.csv and photos -> the classic transfer-learning flow, measured: the baseline of the comparison.

This is what the well-known MobileNetV2 notebooks do, whole, and nothing else: a data set from directories,
augmentation inside the model, 5 epochs with the network frozen, 5 more with the layers from 120 on. It stays
as plain as they are on purpose (batch 32, Adam, prefetch, no cache), known weaknesses included.

    python benchmarks/tutorial.py DATA --split split.csv --weights FILE.h5 --out result.json
"""

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

BATCH = 32
EPOCHS = 5  # in each of the two phases
FROZEN_RATE = 1e-3
FINE_TUNE_RATE = 1e-4
FINE_TUNE_AT = 120  # layers below this one stay frozen in phase 2
READABLE = {".bmp", ".gif", ".jpeg", ".jpg", ".png"}  # all that image_dataset_from_directory looks at


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note the wall seconds of a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)


def link_photos(data: Path, split: Path, tree: Path) -> tuple[list[str], dict[str, int], int]:
    """Lay out part/label/photo as links below `tree`; return labels, photos per part, number left out."""
    with split.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = sorted({row["label"] for row in rows})
    for part in ("train", "val", "test"):
        for label in labels:
            (tree / part / label).mkdir(parents=True)
    counts = dict.fromkeys(("train", "val", "test"), 0)
    skipped = 0
    for number, row in enumerate(rows):
        photo = data.resolve() / row["path"]
        if photo.suffix.lower() not in READABLE:
            skipped += 1
            continue
        (tree / row["part"] / row["label"] / f"{number:06d}{photo.suffix.lower()}").symlink_to(photo)
        counts[row["part"]] += 1
    return labels, counts, skipped


def load_part(folder: Path, *, image_size: int, seed: int):
    import keras
    import tensorflow as tf

    photos = keras.utils.image_dataset_from_directory(
        folder, shuffle=True, batch_size=BATCH, image_size=(image_size, image_size), seed=seed
    )
    return photos.prefetch(buffer_size=tf.data.AUTOTUNE)


def build_model(*, weights: Path, alpha: float, image_size: int, classes: int):
    """Return the model and, inside it, the pre-trained network."""
    import keras
    from keras import layers

    augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])
    shape = (image_size, image_size, 3)
    base = keras.applications.MobileNetV2(input_shape=shape, alpha=alpha, include_top=False, weights=str(weights))
    base.trainable = False

    inputs = keras.Input(shape=shape)
    x = augmentation(inputs)
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    outputs = layers.Dense(1 if classes == 2 else classes)(x)
    return keras.Model(inputs, outputs), base


def compile_model(model, *, learning_rate: float, classes: int) -> None:
    """Give the model its optimizer, and the loss on logits that suits the number of classes."""
    import keras

    if classes == 2:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        accuracy = keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=loss, metrics=[accuracy])


def evaluate(model, photos) -> dict[str, float]:
    scores = model.evaluate(photos, verbose=2, return_dict=True)
    return {name: float(value) for name, value in scores.items()}


def train_tutorial(args: argparse.Namespace, tree: Path) -> dict:
    """Run the whole flow on the photos of `args.split`; return what was measured."""
    seconds: dict[str, float] = {}
    with timed(seconds, "import"):
        import keras

        keras.utils.set_random_seed(args.seed)
    with timed(seconds, "load"):
        labels, counts, skipped = link_photos(args.data, args.split, tree)
        parts = {
            part: load_part(tree / part, image_size=args.image_size, seed=args.seed)
            for part in ("train", "val", "test")
            if counts[part]
        }
    with timed(seconds, "build"):
        model, base = build_model(
            weights=args.weights, alpha=args.alpha, image_size=args.image_size, classes=len(labels)
        )
    frozen = {}
    fit = {"validation_data": parts.get("val"), "verbose": 2}

    with timed(seconds, "frozen"):
        compile_model(model, learning_rate=FROZEN_RATE, classes=len(labels))
        history = model.fit(parts["train"], epochs=EPOCHS, **fit).history
    if counts["val"]:
        frozen["val"] = {"accuracy": history["val_accuracy"][-1], "loss": history["val_loss"][-1]}

    with timed(seconds, "fine_tune"):
        base.trainable = True
        for layer in base.layers[:FINE_TUNE_AT]:
            layer.trainable = False
        compile_model(model, learning_rate=FINE_TUNE_RATE, classes=len(labels))
        history = model.fit(parts["train"], initial_epoch=EPOCHS, epochs=2 * EPOCHS, **fit).history
    with timed(seconds, "save"):
        model.save(tree / "model.keras")
    with timed(seconds, "evaluate"):
        fine_tuned = {part: evaluate(model, parts[part]) for part in ("val", "test") if counts[part]}
    return {
        "classes": labels,
        "counts": counts,
        "skipped": skipped,
        "seed": args.seed,
        "image_size": args.image_size,
        "train_accuracy": float(history["accuracy"][-1]),
        "frozen": frozen,
        "fine_tuned": fine_tuned,
        "seconds": seconds,
    }


def parse_arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path, help="the folder that the paths of split.csv start from")
    parser.add_argument("--split", type=Path, required=True, help="CSV with path,label,part")
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 without top, Keras h5")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as folder:
        result = train_tutorial(args, Path(folder))
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
