"""split.csv and photos -> a careful fine-tuning of the whole network in Keras: pronk has to be as right as that.

What somebody writes who knows the pitfalls: photos cropped, not squashed; random flips, turns, zooms and colours inside
the model; a head first; then all layers at a low rate that decays, with BatchNormalization kept still; the epoch with
the lowest validation loss is kept.

    python benchmarks/full_fine_tuning.py DATA --split split.csv --weights FILE.h5 --out result.json
"""

import json
import tempfile
import time
from pathlib import Path

from tutorial import BATCH, link_photos, parse_arguments

HEAD_EPOCHS, HEAD_RATE = 5, 1e-3
EPOCHS, RATE = 10, 1e-4


def load_part(folder: Path, *, image_size: int, shuffle: bool, seed: int):
    import keras
    import tensorflow as tf

    photos = keras.utils.image_dataset_from_directory(
        folder,
        batch_size=BATCH,
        image_size=(image_size, image_size),
        crop_to_aspect_ratio=True,
        label_mode="int",
        shuffle=shuffle,
        seed=seed,
        verbose=False,
    )
    return photos.prefetch(buffer_size=tf.data.AUTOTUNE)


def build_model(*, weights: Path, alpha: float, image_size: int, classes: int, seed: int):
    """Return the model and, inside it, the pre-trained network."""
    import keras
    from keras import layers

    shape = (image_size, image_size, 3)
    base = keras.applications.MobileNetV2(input_shape=shape, alpha=alpha, include_top=False, weights=str(weights))
    inputs = keras.Input(shape=shape)
    x = inputs
    for layer in (
        layers.RandomFlip("horizontal", seed=seed),
        layers.RandomRotation(0.05, seed=seed + 1),
        layers.RandomZoom(0.2, seed=seed + 2),
        layers.RandomBrightness(0.15, seed=seed + 3),
        layers.RandomContrast(0.2, seed=seed + 4),
        layers.RandomSaturation(0.2, seed=seed + 5),
    ):
        x = layer(x)
    x = base(keras.applications.mobilenet_v2.preprocess_input(x), training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2, seed=seed)(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x)), base


def fit(model, parts: dict, *, learning_rate, epochs: int) -> None:
    """Train; afterwards the weights are those of the epoch with the lowest validation loss."""
    import keras

    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    best = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    model.fit(parts["train"], validation_data=parts["val"], epochs=epochs, callbacks=[best], verbose=2)


def train(args, tree: Path) -> dict:
    """Run the whole flow on the photos of `args.split`; return what it says of the test photos."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(args.seed)
    classes, counts, skipped = link_photos(args.data, args.split, tree)
    rest = {"image_size": args.image_size, "seed": args.seed}
    parts = {part: load_part(tree / part, shuffle=part == "train", **rest) for part in ("train", "val", "test")}
    model, base = build_model(weights=args.weights, alpha=args.alpha, classes=len(classes), **rest)

    base.trainable = False
    fit(model, parts, learning_rate=HEAD_RATE, epochs=HEAD_EPOCHS)
    base.trainable = True
    for layer in base.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    steps = EPOCHS * len(parts["train"])
    fit(model, parts, learning_rate=keras.optimizers.schedules.CosineDecay(RATE, steps), epochs=EPOCHS)
    model.save(tree / "model.keras")
    return {
        "classes": classes,
        "counts": counts,
        "skipped": skipped,
        "labels": np.concatenate([labels for _, labels in parts["test"]]).tolist(),
        "probabilities": model.predict(parts["test"], verbose=0).astype(float).tolist(),
    }


def main() -> None:
    args = parse_arguments(__doc__.splitlines()[0])
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = train(args, Path(folder))
    result["seconds"] = round(time.perf_counter() - start, 3)
    args.out.write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
